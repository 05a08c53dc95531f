"""Figures that compare methods: gains, choices of the epoch, paired differences.

As in `cbbt.results.plots.accuracy`: a tidy table of runs in, a matplotlib figure out. Every seed
is shown as a point next to the mean. Errors are those of `cbbt.results.tables`.
"""

from __future__ import annotations

import math

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cbbt.catalogue import label
from cbbt.results.formatting import shots_name
from cbbt.results.plots.parts import (
    INTERVALS,
    NAME,
    category_axis,
    dots_and_intervals,
    intervals,
    legend,
    look,
    mark,
    of_methods,
    panels,
    short_name,
    symbols,
)
from cbbt.results.plots.style import COLUMN, SERIES, in_style
from cbbt.results.statistics import MARGIN, differences, groups, peer_table, signed
from cbbt.results.tables import ALL, SCORE, dataset_order, mean_over_datasets, require, scores

MEAN = "mean"
OFFICIAL = "test_accuracy_official_selection"
SELECTIONS = {  # column of the table of runs → what it selects by
    "test_accuracy": "last step (reported)",
    "test_accuracy_best_val": "best on validation",
    OFFICIAL: "best on test, as the official code does;\nfor comparison only",
}
CHOICES = dict(zip(SELECTIONS, zip(SERIES, "oDX")))  # column → colour and marker


@in_style
def gain_over_zero_shot(runs: pd.DataFrame, shots: int, methods: list[str] | tuple[str, ...] = ("cbbt",)) -> Figure:
    """Points of test accuracy gained over zero-shot: bars are means, dots are seeds.

    Data sets are sorted by the gain of the first method; the last row is the mean
    over data sets. Needs zero-shot runs, and columns dataset, backbone, method,
    shots, seed, test_accuracy. Raises ValueError if no method is named.
    """
    if not methods:
        raise ValueError("name at least one method to draw")
    wide = {method: differences(runs, method, "zero_shot", shots) for method in methods}
    wide = pd.concat(wide, names=["method"]).pivot_table(index=["method", "seed"], columns="dataset", values="difference")
    order = list(wide.loc[methods[0]].mean().sort_values(ascending=False, kind="stable").index)
    wide[MEAN] = wide[order].mean(axis=1, skipna=False)
    table = wide.melt(var_name="dataset", value_name="gain", ignore_index=False).dropna().reset_index()
    figure = Figure(figsize=(COLUMN, 0.8 + len(wide.columns) * (0.08 + 0.15 * len(methods))))
    ax = figure.subplots()
    palette = {method: look(method)[0] for method in methods}
    common = {"data": table, "x": "gain", "y": "dataset", "order": [*order, MEAN], "hue": "method", "hue_order": list(methods)}
    common |= {"palette": palette, "dodge": True, "legend": False, "ax": ax}
    sns.barplot(**common, errorbar=None, alpha=0.5)
    sns.stripplot(**common, jitter=False, size=2.8, edgecolor="white", linewidth=0.3)
    for bars in ax.containers:
        for bar in bars:
            text = "" if math.isnan(bar.get_width()) else signed(bar.get_width(), 1)
            place = bar.get_y() + bar.get_height() / 2
            ax.text(1.01, place, text, transform=ax.get_yaxis_transform(), va="center", fontsize=6)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.axhline(len(order) - 0.5, color="black", linewidth=0.5)
    category_axis(ax, [short_name(name) for name in [*order, MEAN]])
    ax.set(xlabel=f"gain over zero-shot (points), {shots_name(shots)}", ylabel="")
    legend(figure, [mark(look(method)[0], "s", label(method)) for method in methods], "bars: means; dots: seeds")
    return figure


@in_style
def gain_over_peers(runs: pd.DataFrame, shots: int, method: str = "cbbt") -> Figure:
    """`method` minus every other tuned method over all data sets: a row per method, the largest difference first.

    Symbols: data sets, each the mean over its seeds; for a single data set its seeds. Diamonds and bars: their mean and
    95 % t interval (`cbbt.results.statistics.difference_table`), not corrected for the number of peers. Peers that share
    no data set and seed with `method` are omitted, and zero-shot has a separate figure. Needs columns dataset,
    backbone, method, shots, seed, test_accuracy. Raises ValueError if there is no peer.
    """
    peers = list(peer_table(runs, method, shots)["mean"].sort_values(ascending=False, kind="stable").index)
    parts = {peer: groups(differences(runs, method, peer, shots)) for peer in peers}
    table = pd.concat({peer: list(part.values())[-1] for peer, part in parts.items()}, names=["peer", "dataset"])
    table = table.rename("difference").reset_index()
    single = runs.dataset.nunique() == 1
    names = [] if single else [name for name in dataset_order(runs) if name in set(table.dataset)]
    figure = Figure(figsize=(COLUMN, 1.0 + 0.165 * len(peers) + 0.07 * len(names)))
    ax = figure.subplots()
    ax.axvline(0, color="black", linewidth=0.8, linestyle="--")
    colours, handles = {peer: look(peer)[0] for peer in peers}, []
    if single:
        dots_and_intervals(ax, table, "difference", "peer", peers, colours)
    else:
        intervals(ax, table, "difference", "peer", peers, "peer", colours)
        handles = symbols(ax, table, "difference", "peer", names)
    category_axis(ax, [label(peer) for peer in peers])
    figure.suptitle(f"{label(method)} − each other method, {shots_name(shots)}", fontsize=8, **NAME)
    ax.set_xlabel(f"difference on {short_name(runs.dataset.iloc[0])} (points)" if single else "difference (points)", **NAME)
    legend(figure, handles, f"{'dots: seeds' if single else 'symbols: data sets'}; {INTERVALS}")
    return figure


@in_style
def selection_comparison(runs: pd.DataFrame, shots: int, methods: list[str] | None = None) -> Figure:
    """The effect of the choice of the epoch: last step, best on validation, best on test.

    Accuracy is the mean over data sets; large marks are means over seeds, small
    dots the seeds. Methods without epochs, or without a seed that has every data
    set, are omitted. Needs columns dataset, backbone, method, shots, seed and the
    three test_accuracy columns.
    """
    require(runs, list(SELECTIONS))
    tuned = of_methods(runs, methods).dropna(subset=list(SELECTIONS))
    means = {column: mean_over_datasets(scores(tuned, shots, column)) for column in SELECTIONS}
    table = pd.concat(means, names=["choice"]).melt(var_name="method", value_name="accuracy", ignore_index=False)
    table = table.dropna().reset_index()
    drawn = [method for method in means[SCORE] if method in set(table.method)]
    if not drawn:
        raise ValueError(f"no method has a seed with every data set for shots={shots}")
    figure = Figure(figsize=(COLUMN, 1.5 + 0.36 * len(drawn)))
    ax = figure.subplots()
    _choices(ax, table, "accuracy", drawn)
    datasets = len(dataset_order(tuned[tuned.shots == shots]))
    ax.set_xlabel(f"test accuracy (%), {shots_name(shots)}" + (f"\nmean of {datasets} data sets" if datasets > 1 else ""))
    _choices_legend(figure, list(SELECTIONS), "epoch (small dots: seeds)")
    return figure


@in_style
def selection_gains(runs: pd.DataFrame, shots: int, methods: list[str] | None = None) -> Figure:
    """What a choice of the epoch adds to the last step, in points: a panel per data set, a row per method.

    For methods whose accuracies differ too much for `selection_comparison`. Large marks are means over
    seeds, small dots the seeds; at the right the mean number of models that the choice is made from.
    Methods without epochs are omitted. Needs columns dataset, backbone, method, shots, seed, looks and
    the three test_accuracy columns. Raises ValueError if no run has them.
    """
    require(runs, [*SELECTIONS, "looks"])
    tuned = of_methods(runs, methods).dropna(subset=list(SELECTIONS))
    last, looks = scores(tuned, shots), scores(tuned, shots, "looks").groupby("dataset").mean()
    gains = {column: scores(tuned, shots, column) - last for column in SELECTIONS if column != SCORE}
    table = pd.concat(gains, names=["choice"]).melt(var_name="method", value_name="gain", ignore_index=False)
    table, drawn = table.dropna().reset_index(), list(last)
    grid = panels(table, "dataset", 0.8 + 0.2 * len(drawn))
    for name, ax in grid.axes_dict.items():
        _choices(ax, table[table.dataset == name], "gain", drawn)
        for row, number in enumerate(looks.loc[name]):
            text = "" if math.isnan(number) else f"{number:.0f}"
            ax.text(1.01, row, text, transform=ax.get_yaxis_transform(), va="center", fontsize=6.5)
        ax.axvline(0, color="black", linewidth=0.8)
    grid.set_axis_labels("gain (points)", "")
    _choices_legend(
        grid.figure, list(gains), f"{shots_name(shots)}; gain over the last step; small dots: seeds; right: models compared"
    )
    return grid.figure


def _choices(ax, table: pd.DataFrame, x: str, methods: list[str]) -> None:
    """A row per method; each choice of the epoch has its own mark, and dots for the seeds."""
    chosen = [column for column in SELECTIONS if column in set(table.choice)]
    palette, markers = ({column: CHOICES[column][index] for column in chosen} for index in (0, 1))
    common = {"data": table, "x": x, "y": "method", "order": methods, "hue": "choice", "hue_order": chosen}
    common |= {"palette": palette, "legend": False, "ax": ax}
    sns.stripplot(**common, dodge=True, jitter=False, size=2.2, alpha=0.6)
    wide = 0.8 - 0.8 / len(chosen)  # the same spacing as the dots
    marks = {"markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.5, "linestyle": "none"}
    sns.pointplot(**common, dodge=wide, errorbar=None, markers=list(markers.values()), **marks)
    for row in range(len(methods) - 1):
        ax.axhline(row + 0.5, color="0.9", linewidth=0.6)
    category_axis(ax, [label(method) for method in methods])
    ax.set(xlabel="", ylabel="")


def _choices_legend(figure: Figure, columns: list[str], title: str) -> None:
    handles = [mark(*CHOICES[column], SELECTIONS[column]) for column in columns]
    legend(figure, handles, title, columns=1 if figure.get_figwidth() <= COLUMN else 2)


@in_style
def paired_differences(runs: pd.DataFrame, shots: int, method: str = "cbbt", baseline: str = "adapter") -> Figure:
    """`method` minus `baseline` on the same data set and seed; the last row is over data sets, each a dot.

    Diamonds and bars: mean and 95 % t interval (see `cbbt.results.statistics.difference_table`);
    an interval across zero shows no difference. The grey strip is ± `MARGIN`: equality
    is shown if the 90 % interval lies within it.
    Needs columns dataset, backbone, method, shots, seed, test_accuracy.
    """
    dots = groups(differences(runs, method, baseline, shots))
    table = pd.concat(dots, names=["dataset"]).rename("difference").reset_index(level=0)
    figure = Figure(figsize=(COLUMN, 0.98 + 0.24 * len(dots)))
    ax = figure.subplots()
    ax.axvspan(-MARGIN, MARGIN, color="0.93", zorder=0)
    ax.axvline(0, color="black", linewidth=0.8, linestyle="--")
    dots_and_intervals(ax, table, "difference", "dataset", list(dots), dict.fromkeys(dots, look(method)[0]))
    if ALL in dots:
        ax.axhline(len(dots) - 1.5, color="black", linewidth=0.5)
    category_axis(ax, [f"{short_name(name)} ({len(values)})" for name, values in dots.items()])
    ax.set_title(f"{label(method)} − {label(baseline)}, {shots_name(shots)}", **NAME)
    ax.set_xlabel("difference in test accuracy (points)")
    legend(figure, [], f"dots: seeds, in the last row data sets\n{INTERVALS}; grey: ± {MARGIN:g} point")
    return figure


@in_style
def differences_by_shots(runs: pd.DataFrame, method: str = "cbbt", baseline: str = "adapter") -> Figure:
    """`method` minus `baseline` against shots: a panel per data set and one over all data sets.

    Dots: seeds, or in the last panel data sets. Diamonds and bars: their mean and 95 % t interval. Needs columns dataset,
    backbone, method, shots, seed, test_accuracy.
    """
    counts = sorted(set(runs[runs.method == method].shots))
    dots = {shots: groups(differences(runs, method, baseline, shots)) for shots in counts}
    dots = {(shots, name): values for shots, parts in dots.items() for name, values in parts.items()}
    table = pd.concat(dots, names=["shots", "dataset"]).rename("difference").reset_index(level=[0, 1])
    table = table.assign(shots=table.shots.astype(str))
    grid = panels(table, "dataset", 1.7)
    order = [str(shots) for shots in counts]
    for name, ax in grid.axes_dict.items():
        ax.axhline(0, color="black", linewidth=0.8, linestyle="--")
        colours = dict.fromkeys(order, look(method)[0])
        dots_and_intervals(ax, table[table.dataset == name], "shots", "difference", order, colours)
        ax.grid(axis="x", visible=False)
    grid.set_axis_labels("shots per class", f"{label(method)} − {label(baseline)}\n(points)", **NAME)
    legend(grid.figure, [], f"dots: seeds, in the last panel data sets; {INTERVALS}")
    return grid.figure
