"""Figures of validation accuracy against the prompt's learning rate, one line per estimator, and against the directions."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cbbt.catalogue import label
from cbbt.results.estimators import TRUE
from cbbt.results.peers import shots_name
from cbbt.results.plots.parts import INTERVALS, dots_and_intervals, legend, letters, look, panels, tick_values
from cbbt.results.plots.style import MARKERS, PAGE, SERIES, in_style


@in_style
def accuracy_against_rate(table: pd.DataFrame) -> Figure:
    """A row per number of shots; left: an estimate at every step, by the number of directions; right: at one step in three.

    `table`: of `cbbt.results.estimators.rate_table`. Lines are means over data sets and seeds;
    the true gradient is in both columns, which share their axis.
    """
    shots, names = sorted(set(table.shots), reverse=True), list(dict.fromkeys(table.estimator))
    counts, families = ([name for name in names if name.startswith("q =")], [name for name in names if "," in name])
    columns = {  # title → its estimators' colours; more directions are darker
        "every step, batches": dict(zip(counts, sns.color_palette("cividis", len(counts)).as_hex())),
        "one step in three, q = 7": dict(zip(families, SERIES)),
    }
    figure = Figure(figsize=(PAGE, 1.0 + 1.5 * len(shots)))
    axes = figure.subplots(len(shots), 2, squeeze=False, sharex=True, sharey="row")
    true_colour, true_marker = look("true_gradient")
    for row, count in zip(axes, shots):
        for ax, (title, own) in zip(row, columns.items()):
            palette, order = own | {TRUE: true_colour}, [*own, TRUE]
            markers = dict(zip(own, MARKERS)) | {TRUE: true_marker}
            common = {"hue_order": order, "style_order": order, "palette": palette, "markers": markers}
            part = table[table.shots == count]
            sns.lineplot(part, x="prompt_lr", y="accuracy", hue="estimator", style="estimator", dashes=False, ax=ax, **common)
            ax.set(xscale="log", title=f"{title}, {count} shots", xlabel="prompt learning rate", ylabel="validation accuracy (%)")
            tick_values(ax.xaxis, table.prompt_lr)
            sns.move_legend(
                ax, "upper center", bbox_to_anchor=(0.5, -0.32), ncols=2, title="", columnspacing=0.8, handlelength=1.6
            )
            if count != shots[-1]:
                ax.get_legend().remove()
            ax.label_outer()
    letters(axes.flat)
    figure.suptitle("means over data sets and seeds", fontsize=7)
    return figure


@in_style
def accuracy_by_directions(table: pd.DataFrame, method: str) -> Figure:
    """Points over a data set's mean against q, at one budget of loss queries: a panel per number of shots, most first.

    table: of `cbbt.results.estimators.directions_table`, for `method`. Dots: data sets.
    """
    table = table.sort_values(["shots", "q"], ascending=[False, True]).assign(
        panel=lambda rows: rows.shots.map(shots_name), directions=lambda rows: rows.q.astype(str)
    )
    order = [str(q) for q in sorted(set(table.q))]
    grid = panels(table, "panel", 1.8)
    for name, ax in grid.axes_dict.items():
        ax.axhline(0, color="black", linewidth=0.8, linestyle="--")
        colours = dict.fromkeys(order, look(method)[0])
        dots_and_intervals(ax, table[table.panel == name], "directions", "ahead", order, colours)
        ax.grid(axis="x", visible=False)
    grid.set_axis_labels("directions q per step, at a fixed budget", "validation accuracy,\npoints above the mean")
    legend(grid.figure, [], f"{label(method)}; dots: data sets; {INTERVALS}")
    return grid.figure
