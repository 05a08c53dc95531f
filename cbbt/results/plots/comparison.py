"""Figures that compare methods: gains, choices of the epoch, paired differences.

As in `cbbt.results.plots.accuracy`: a tidy table of runs in, a matplotlib figure out, and every
seed is shown as a point beside its mean. Errors are those of `cbbt.results.tables`.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cbbt.catalogue import label
from cbbt.results.plots.parts import NAME, look, of_methods, panel_axes, short_name
from cbbt.results.plots.style import COLUMN, in_style
from cbbt.results.statistics import MARGIN, difference_table, differences, groups, mean_ranks, peer_table
from cbbt.results.tables import ALL, SCORE, dataset_order, mean_over_datasets, require, scores

OFFICIAL = "test_accuracy_official_selection"
SELECTIONS = {  # column of the table of runs → what it selects by, marker
    "test_accuracy": ("last step (reported)", "o"),
    "test_accuracy_best_val": ("best on validation", "D"),
    OFFICIAL: ("best on test, as the official code does;\nfor comparison only", "X"),
}


@in_style
def gain_over_zero_shot(runs: pd.DataFrame, shots: int, methods: list[str] | tuple[str, ...] = ("cbbt",)) -> Figure:
    """Points of test accuracy gained over zero-shot: bars are means, dots are seeds.

    Data sets are sorted by the gain of the first method; the last row is the mean
    over data sets. Needs zero-shot runs, and columns dataset, backbone, method,
    shots, seed, test_accuracy. Raises ValueError if no method is named.
    """
    if not methods:
        raise ValueError("there is no method whose gain could be drawn")
    gains = {method: differences(runs, method, "zero_shot", shots) for method in methods}
    first = gains[methods[0]].groupby("dataset").difference.mean()
    order = [*first.sort_values(ascending=False).index, "mean"]
    height = 0.8 / len(methods)
    figure = Figure(figsize=(COLUMN, 0.75 + len(order) * (0.08 + 0.17 * len(methods))))
    ax = figure.subplots()
    for index, (method, table) in enumerate(gains.items()):
        wide = table.pivot(index="seed", columns="dataset", values="difference").reindex(columns=order[:-1])
        wide["mean"] = wide.mean(axis=1, skipna=False)
        rows = np.arange(len(order)) + (index - (len(methods) - 1) / 2) * height
        ax.barh(rows, wide.mean(), 0.86 * height, color=look(method)[0], alpha=0.45, label=label(method))
        for values in wide.to_numpy():
            ax.plot(values, rows, linestyle="none", marker="o", markersize=2.6, color=look(method)[0], mec="white", mew=0.3)
        for row, gain in zip(rows, wide.mean()):
            text = "" if math.isnan(gain) else f"{gain:+.1f}"
            ax.text(1.01, row, text, transform=ax.get_yaxis_transform(), va="center", fontsize=6.5)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.axhline(len(order) - 1.5, color="black", linewidth=0.5)
    ax.set_yticks(range(len(order)), labels=[short_name(name) for name in order], **NAME)
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"gain over zero-shot (points), {shots} shots; dots: seeds")
    if len(methods) > 1:
        for text in figure.legend(loc="outside upper center", ncols=2).get_texts():
            text.set(**NAME)
    else:
        ax.set_title(label(methods[0]), **NAME)
    return figure


@in_style
def gain_over_peers(runs: pd.DataFrame, shots: int, method: str = "cbbt") -> Figure:
    """`method` minus every other tuned method: a panel per data set and one over all data sets.

    Dots: seeds, or in the last panel data sets. Diamonds and bars: their mean and 95 % t
    interval (`cbbt.results.statistics.difference_table`), not corrected for the number of
    peers. Peers that share no data set and seed with `method` are left out, and zero-shot
    has a figure of its own. Needs columns dataset, backbone, method, shots, seed,
    test_accuracy. Raises ValueError if there is no peer.
    """
    peers = list(peer_table(runs, method, shots).index)
    names = list(dict.fromkeys(scores(runs, shots).index.get_level_values("dataset")))
    names += [ALL] if len(names) > 1 else []
    figure, axes, _ = panel_axes(len(names), "difference (points)", "", sharey=True)
    for row, peer in enumerate(peers):
        dots, table = groups(differences(runs, method, peer, shots)), difference_table(runs, method, peer, shots)
        colour = look(peer)[0]
        for ax, name in zip(axes, names):
            values = dots.get(name, ())
            ax.plot(
                values, [row + 0.2] * len(values), linestyle="none", marker="o", markersize=2.6, color=colour, alpha=0.6, mew=0
            )
            if len(values):
                line = table.loc[name]
                ax.plot([line.low, line.high], [row - 0.12] * 2, marker="|", markersize=4, color="black", linewidth=1.1)
                ax.plot(line["mean"], row - 0.12, marker="D", markersize=3.5, color="black", markerfacecolor=colour)
    for ax, name in zip(axes, names):
        ax.axvline(0, color="black", linewidth=0.8, linestyle="--")
        ax.set_yticks(range(len(peers)), labels=[label(peer) for peer in peers], **NAME)
        ax.set_ylim(len(peers) - 0.5, -0.5)
        ax.grid(axis="y", visible=False)
        ax.set_title(short_name(name), fontweight="bold" if name == ALL else "normal", **NAME)
    rows = len(figure.axes) // axes[0].get_gridspec().ncols
    figure.set_figheight(rows * (0.5 + 0.17 * len(peers)) + 0.35)
    lines = (f"{label(method)} − each other method, {shots} shots", "dots: seeds, data sets; bars: 95 % t interval")
    figure.suptitle(("; " if len(names) > 1 else "\n").join(lines), fontsize=8, **NAME)
    return figure


@in_style
def selection_comparison(runs: pd.DataFrame, shots: int, methods: list[str] | None = None) -> Figure:
    """What the choice of the epoch is worth: last step, best on validation, best on test.

    Accuracy is the mean over data sets; large marks are means over seeds, small
    dots the seeds. Methods without epochs, or without a seed that has every data
    set, are left out. Needs columns dataset, backbone, method, shots, seed and the
    three test_accuracy columns.
    """
    require(runs, list(SELECTIONS))
    tuned = of_methods(runs, methods).dropna(subset=list(SELECTIONS))
    means = {column: mean_over_datasets(scores(tuned, shots, column)) for column in SELECTIONS}
    drawn = [method for method in means[SCORE] if means[SCORE][method].notna().any()]
    if not drawn:
        raise ValueError(f"no method has a seed with every data set for shots={shots}")
    figure = Figure(figsize=(COLUMN, 1.5 + 0.36 * len(drawn)))
    ax = figure.subplots()
    for offset, column in zip((-0.24, 0.0, 0.24), SELECTIONS):
        for row, method in enumerate(drawn):
            values, colour = means[column][method].dropna(), look(method)[0]
            ax.plot(values, [row + offset] * len(values), linestyle="none", marker=".", markersize=3, color=colour, alpha=0.6)
            ax.plot(values.mean(), row + offset, markersize=5.5, **_mark(column, colour))
    for row in range(len(drawn) - 1):
        ax.axhline(row + 0.5, color="#E5E5E5", linewidth=0.6)
    ax.set_yticks(range(len(drawn)), labels=[label(method) for method in drawn], **NAME)
    ax.set_ylim(len(drawn) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    datasets = len(dataset_order(tuned[tuned.shots == shots]))
    ax.set_xlabel(f"test accuracy (%), {shots} shots" + (f"\nmean of {datasets} data sets" if datasets > 1 else ""))
    _selection_legend(figure, list(SELECTIONS), "epoch (small dots: seeds)")
    return figure


@in_style
def selection_gains(runs: pd.DataFrame, shots: int, methods: list[str] | None = None) -> Figure:
    """What a choice of the epoch adds to the last step, in points: a panel per data set, a row per method.

    For methods that lie too far apart for `selection_comparison`. Large marks are means over seeds,
    small dots the seeds; at the right the mean number of models that the choice looks at. Methods
    without epochs are left out. Needs columns dataset, backbone, method, shots, seed, looks and the
    three test_accuracy columns. Raises ValueError if no run has them.
    """
    require(runs, [*SELECTIONS, "looks"])
    tuned = of_methods(runs, methods).dropna(subset=list(SELECTIONS))
    last, looks = scores(tuned, shots), scores(tuned, shots, "looks").groupby("dataset").mean()
    gains = {column: scores(tuned, shots, column) - last for column in SELECTIONS if column != SCORE}
    names, drawn = list(dict.fromkeys(last.index.get_level_values("dataset"))), list(last)
    figure, axes, _ = panel_axes(len(names), "points over the last step", "", sharey=True)
    for ax, name in zip(axes, names):
        for offset, (column, wide) in zip((-0.18, 0.18), gains.items()):
            for row, method in enumerate(drawn):
                values, colour = wide[method][name].dropna(), look(method)[0]
                ax.plot(values, [row + offset] * len(values), linestyle="none", marker=".", markersize=3, color=colour, alpha=0.6)
                ax.plot(values.mean(), row + offset, markersize=5, **_mark(column, colour))
        for row, number in enumerate(looks.loc[name]):
            text = "" if math.isnan(number) else f"{number:.0f}"
            ax.text(1.01, row, text, transform=ax.get_yaxis_transform(), va="center", fontsize=6.5)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_yticks(range(len(drawn)), labels=[label(method) for method in drawn], **NAME)
        ax.set_ylim(len(drawn) - 0.5, -0.5)
        ax.set_title(short_name(name), **NAME)
    rows = len(figure.axes) // axes[0].get_gridspec().ncols
    figure.set_figheight(rows * (0.5 + 0.2 * len(drawn)) + 0.6)
    _selection_legend(figure, list(gains), f"{shots} shots; small dots: seeds; at the right: models looked at")
    return figure


def _mark(column: str, colour: str) -> dict:
    """Matplotlib's options of a mark; that of the choice on test is open."""
    return {"marker": SELECTIONS[column][1], "color": colour, "markerfacecolor": "white" if column == OFFICIAL else colour}


def _selection_legend(figure: Figure, columns: list[str], title: str) -> None:
    """What the marks of these columns of `SELECTIONS` mean, below the panels."""
    handles = [
        Line2D([], [], linestyle="none", markersize=5, label=SELECTIONS[name][0], **_mark(name, "black")) for name in columns
    ]
    ncols = 2 if figure.get_figwidth() > COLUMN else 1
    figure.legend(handles=handles, loc="outside lower left", ncols=ncols, title=title, title_fontsize=7, alignment="left")


@in_style
def paired_differences(runs: pd.DataFrame, shots: int, method: str = "cbbt", baseline: str = "adapter") -> Figure:
    """`method` minus `baseline` on the same data set and seed; in the last row, over data sets, each a dot.

    Diamonds and bars: mean and 95 % t interval (see `cbbt.results.statistics.difference_table`);
    an interval across zero shows no difference. The grey strip is ± `MARGIN`: an equality
    is shown by the 90 % interval within it.
    Needs columns dataset, backbone, method, shots, seed, test_accuracy.
    """
    dots = groups(differences(runs, method, baseline, shots))
    table = difference_table(runs, method, baseline, shots)
    figure = Figure(figsize=(COLUMN, 0.98 + 0.26 * len(table)))
    ax = figure.subplots()
    colour = look(method)[0]
    for row, (name, line) in enumerate(table.iterrows()):
        values = dots[name]
        ax.plot(values, [row + 0.17] * len(values), linestyle="none", marker="o", markersize=3, color=colour, alpha=0.55, mew=0)
        if pd.notna(line.low):
            ax.plot([line.low, line.high], [row - 0.12] * 2, marker="|", markersize=4, color="black", linewidth=1.1)
        ax.plot(line["mean"], row - 0.12, marker="D", markersize=4, color="black", markerfacecolor=colour)
    ax.axvline(0, color="black", linewidth=0.8, linestyle="--")
    ax.axvspan(-MARGIN, MARGIN, color="0.93", zorder=0)
    if ALL in table.index:
        ax.axhline(len(table) - 1.5, color="black", linewidth=0.5)
    ax.set_yticks(range(len(table)), labels=[f"{short_name(name)} ({n})" for name, n in table.n.items()], **NAME)
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.set_title(f"{label(method)} − {label(baseline)}, {shots} shots", **NAME)
    bands = f"bars: 95 % t interval; grey: ± {MARGIN:g} point"
    ax.set_xlabel(f"difference in test accuracy (points)\ndots: seeds, in the last row data sets\n{bands}")
    return figure


@in_style
def differences_by_shots(runs: pd.DataFrame, method: str = "cbbt", baseline: str = "adapter") -> Figure:
    """`method` minus `baseline` against shots: a panel per data set and one over all data sets.

    Dots: seeds, or in the last panel data sets. Diamonds and bars: their mean and 95 % t interval. Needs columns dataset,
    backbone, method, shots, seed, test_accuracy.
    """
    counts = sorted(set(runs[runs.method == method].shots))
    names = dataset_order(runs)
    names += [ALL] if len(names) > 1 else []
    ylabel = f"{label(method)} − {label(baseline)}\n(points)"
    figure, axes, _ = panel_axes(len(names), "shots", ylabel, columns=5, sharey=True)
    for place, shots in enumerate(counts):
        dots, table = groups(differences(runs, method, baseline, shots)), difference_table(runs, method, baseline, shots)
        for ax, name in zip(axes, names):
            line, values = table.loc[name], dots[name]
            ax.plot(
                [place + 0.2] * len(values),
                values,
                linestyle="none",
                marker="o",
                markersize=2.6,
                color=look(method)[0],
                alpha=0.55,
                mew=0,
            )
            ax.plot([place - 0.1] * 2, [line.low, line.high], marker="_", markersize=4, color="black", linewidth=1.1)
            ax.plot(place - 0.1, line["mean"], marker="D", markersize=3.5, color="black", markerfacecolor=look(method)[0])
    for ax, name in zip(axes, names):
        ax.axhline(0, color="black", linewidth=0.8, linestyle="--")
        ax.set_xticks(range(len(counts)), labels=counts)
        ax.set_xlim(-0.5, len(counts) - 0.5)
        ax.grid(axis="x", visible=False)
        ax.set_title(short_name(name), **NAME)
    figure.suptitle("dots: seeds, in the last panel data sets; bars: 95 % t interval", fontsize=7)
    return figure


@in_style
def critical_difference(runs: pd.DataFrame, shots: int, methods: list[str] | None = None) -> Figure:
    """Mean ranks over data sets; a bar joins methods that no Nemenyi test tells apart (Demšar, JMLR 2006).

    A data set counts once, with the mean over its seeds; rank 1 is the best, ties
    share theirs. The bar above the axis is the critical difference at the 5 %
    level, q · √(k(k + 1)/6N) for k methods on N data sets: with few data sets it is
    long. Needs columns dataset, backbone, method, shots, seed, test_accuracy.
    Raises ValueError for fewer than ten data sets, or two methods that have them all.
    """
    ranks, difference = mean_ranks(runs, shots, methods)
    figure = Figure(figsize=(COLUMN, 1.0 + 0.2 * len(ranks)))
    ax = figure.subplots()
    for row, (method, rank) in enumerate(ranks.items()):
        colour, marker = look(method)
        ax.plot(rank, row, color=colour, marker=marker or "o", markersize=5)
        # Ranks are sorted: those within one critical difference of this one end here.
        end = ranks[ranks <= rank + difference].iloc[-1]
        if end > rank and (row == 0 or ranks[ranks <= ranks.iloc[row - 1] + difference].iloc[-1] < end):
            ax.plot([rank, end], [row, row], color="0.6", marker="", linewidth=2.2, solid_capstyle="round", zorder=1)
    ax.plot([1, 1 + difference], [-1, -1], color="black", marker="|", markersize=5, linewidth=1)
    ax.text(1 + difference / 2, -1.25, f"critical difference {difference:.2f}", ha="center", va="bottom", fontsize=6.5)
    ax.set_yticks(range(len(ranks)), labels=[label(method) for method in ranks.index], **NAME)
    ax.set_ylim(len(ranks) - 0.5, -2)
    ax.set_xlabel(f"mean rank over {runs.dataset.nunique()} data sets,\n{shots} shots (1 is best)")
    ax.grid(axis="y", visible=False)
    return figure
