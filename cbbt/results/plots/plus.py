"""Figures of CBBT+: its prompt's accuracy against queries, and the effect of each part. Tables in, a figure out."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from cbbt.catalogue import method_order
from cbbt.results.peers import shots_name
from cbbt.results.plots.parts import INTERVALS, category_axis, dots_and_intervals, handle, legend, lines, look, of_lines, panels
from cbbt.results.plots.style import in_style
from cbbt.results.plus import PARTS, accuracy_by_sets, part_pairs, part_table
from cbbt.results.statistics import MARGIN, differences, groups
from cbbt.results.tables import ALL


@in_style
def accuracy_by_prompt_sets(curves: pd.DataFrame) -> Figure:
    """Test accuracy, mean over data sets, against prompt sets queried: a panel per number of shots, most first.

    Lines are means over seeds, bands ± one standard deviation; panels share their axis. Needs the columns of
    `accuracy_by_sets`. Raises ValueError for more than six methods.
    """
    drawn = method_order(of_lines(curves, None).method)
    counts = sorted(set(curves.shots), reverse=True)
    table = pd.concat([accuracy_by_sets(curves, shots).assign(panel=shots_name(shots)) for shots in counts])
    grid = panels(table, "panel", 1.9)
    for name, ax in grid.axes_dict.items():
        lines(ax, table[table.panel == name], "prompt_sets", "accuracy", dense=True)
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
    grid.set_axis_labels("prompt sets queried", f"test accuracy (%)\nmean of {curves.dataset.nunique()} data sets")
    legend(grid.figure, [handle(method) for method in drawn], "lines: means; bands: ± one sd over seeds")
    return grid.figure


@in_style
def part_differences(table: pd.DataFrame) -> Figure:
    """The effect of each part of CBBT+: a panel per number of shots, a row per part.

    Dots: data sets, each the mean over its seeds. Diamonds and bars: mean and 95 % t interval over them, not corrected
    for the number of rows; the grey strip is ± `MARGIN`. table: of `cbbt.results.plus.with_parts`.
    """
    parts = [part for part in PARTS if part in part_table(table).index.get_level_values("part")]
    values = {
        (shots_name(shots), part): groups(differences(pair, "with", "without", shots))[ALL]
        for shots in sorted(set(table.shots))
        for part, pair in part_pairs(table, shots).items()
    }
    values = pd.concat(values, names=["shots", "part"]).rename("difference").reset_index()
    grid = panels(values, "shots", 0.55 + 0.25 * len(parts))
    for name, ax in grid.axes_dict.items():
        ax.axvspan(-MARGIN, MARGIN, color="0.93", zorder=0)
        ax.axvline(0, color="black", linewidth=0.8, linestyle="--")
        colours = dict.fromkeys(parts, look("cbbt_plus")[0])
        dots_and_intervals(ax, values[values.shots == name], "difference", "part", parts, colours)
        category_axis(ax, parts)
    grid.set_axis_labels("difference (points)", "")
    legend(grid.figure, [], f"CBBT+ minus CBBT+ without the part; dots: data sets; {INTERVALS}; grey: ± {MARGIN:g} point")
    return grid.figure
