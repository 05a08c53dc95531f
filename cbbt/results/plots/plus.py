"""Figures of CBBT+: its prompt against what it asked, and what each part brings. Tables in, a figure out."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from cbbt.catalogue import method_order
from cbbt.results.plots.parts import handle, legend, line
from cbbt.results.plots.style import COLOURS, PAGE, in_style
from cbbt.results.plus import PARTS, accuracy_by_sets, part_pairs, part_table
from cbbt.results.statistics import MARGIN, differences


@in_style
def accuracy_by_prompt_sets(curves: pd.DataFrame) -> Figure:
    """Test accuracy, mean over data sets, against prompt sets asked: a panel per number of shots, most first.

    Lines are means over seeds, bands ± one standard deviation. Needs the columns of `accuracy_by_sets`.
    """
    counts = sorted(set(curves.shots), reverse=True)
    figure = Figure(figsize=(PAGE, 2.6))
    axes = figure.subplots(1, len(counts), sharex=True, squeeze=False)[0]
    for ax, shots in zip(axes, counts):
        table = accuracy_by_sets(curves, shots)
        for method in method_order(table.method):
            line(ax, table[table.method == method], "prompt_sets", "accuracy", method, dense=True)
        ax.set(title=f"{shots} shots" if shots > 1 else "1 shot", xlabel="prompt sets asked", xscale="log")
        ax.xaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel(f"test accuracy (%)\nmean of {curves.dataset.nunique()} data sets")
    legend(figure, [], [handle(method) for method in method_order(curves.method)], "mean ± sd over seeds")
    return figure


@in_style
def part_differences(table: pd.DataFrame) -> Figure:
    """What each part of CBBT+ brings: a panel per number of shots, a row per part.

    Dots: data sets, each the mean over its seeds. Diamonds and bars: mean and 95 % t interval over them, not corrected
    for the number of rows; the grey strip is ± `MARGIN`. table: of `cbbt.results.plus.with_parts`.
    """
    brought = part_table(table)
    counts, parts = sorted(set(table.shots)), [part for part in PARTS if part in brought.index.get_level_values("part")]
    figure = Figure(figsize=(PAGE, 0.95 + 0.27 * len(parts)))
    axes = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    for ax, shots in zip(axes, counts):
        ax.axvspan(-MARGIN, MARGIN, color="0.93", zorder=0)
        ax.axvline(0, color="black", linewidth=0.8, linestyle="--")
        for part, pair in part_pairs(table, shots).items():
            row, bar = parts.index(part), brought.loc[shots, part]
            dots = differences(pair, "with", "without", shots).groupby("dataset").difference.mean()
            ax.plot(dots, [row + 0.2] * len(dots), linestyle="none", marker="o", markersize=3, color=COLOURS[0], alpha=0.6, mew=0)
            ax.plot([bar.low, bar.high], [row - 0.12] * 2, marker="|", markersize=4, color="black", linewidth=1.1)
            ax.plot(bar["mean"], row - 0.12, marker="D", markersize=4, color="black", markerfacecolor=COLOURS[0])
        ax.set(title=f"{shots} shots" if shots > 1 else "1 shot", xlabel="difference (points)")
        ax.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(parts)), labels=parts)
    axes[0].set_ylim(len(parts) - 0.5, -0.5)
    figure.suptitle("CBBT+ minus CBBT+ without the part; dots: data sets; bars: 95 % t interval", fontsize=8)
    return figure
