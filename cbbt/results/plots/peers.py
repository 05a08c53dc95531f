"""Figure of the field's accuracy against cost, from the table of runs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import NullLocator

from cbbt.catalogue import SHADES, UNTUNED, label, method_order
from cbbt.results.peers import WHITE, block, shots_name
from cbbt.results.plots.parts import NAME, kind, legend, letters, mark, point
from cbbt.results.plots.style import PAGE, in_style
from cbbt.results.tables import SCORE, mean_over_datasets, require, scores

PRICES = {"class_prompts": "class prompts encoded", "fit_seconds": "fit time (s)", "learned": "learned parameters"}
KINDS = {"prompt": "prompt side", "output": "output side", "both": "both", "reference": "reference", "own": "others"}
LEADER = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}  # line from a name to its point
HALO = withStroke(linewidth=1.5, foreground="white")
PLACES = sorted(itertools.product(range(-72, 73, 6), [*range(-75, -8, 3), *range(9, 90, 3)]), key=lambda way: math.hypot(*way))
LEAST_SECONDS = 0.01  # the tables' rounding


@in_style
def accuracy_against_price(runs: pd.DataFrame, shots: int) -> Figure:
    """Mean accuracy over data sets against the cost of the fit: a panel per kind of cost, a point per method.

    Every method has its look. The line is the Pareto frontier, without white-box methods; its methods are named, and so
    are the most accurate of each kind, zero-shot and CBBT. The others are drawn pale behind them, without a name. Means
    over seeds; methods without a seed that has every data set are omitted. Needs columns dataset, backbone, method,
    shots, seed, test_accuracy, class_prompts, fit_seconds, learned.
    """
    require(runs, [SCORE, *PRICES])
    accuracy = mean_over_datasets(scores(runs, shots)).mean().dropna()
    costs = runs[runs.shots.isin([0, shots])].groupby("method")[list(PRICES)].mean()
    table = costs.assign(fit_seconds=costs.fit_seconds.clip(lower=LEAST_SECONDS), accuracy=accuracy).dropna(subset="accuracy")
    black = table[[block(method) != WHITE for method in table.index]]
    tuned = black.drop(list(UNTUNED), errors="ignore")
    best = {*tuned.groupby(kind).accuracy.idxmax(), *table.drop(black.index).accuracy.nlargest(1).index}
    best |= {"zero_shot", "cbbt"} & set(table.index)
    figure = Figure(figsize=(PAGE, 3.4))
    axes = dict(zip(PRICES, figure.subplots(1, len(PRICES), sharey=True)))
    letters(axes.values())
    leaders = {price: frontier(black, price) for price in PRICES}
    named = {price: {*leaders[price].index, *best} for price in PRICES}
    steps = {price: _steps(leaders[price], price) for price in PRICES}
    for price, ax in axes.items():
        ax.plot(*steps[price].T, marker="", color="0.35", linewidth=1.0, zorder=1)
        for method, line in table.dropna(subset=price).iterrows():
            strength = (
                {"alpha": 1.0, "markersize": 5, "zorder": 3}
                if method in named[price]
                else {"alpha": 0.35, "markersize": 4, "zorder": 2}
            )
            ax.plot(line[price], line.accuracy, **point(method), **strength)
        _price_axis(ax, table[price])
        ax.set_xlabel(PRICES[price])
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.1 * (high - low))  # room for names
    axes["class_prompts"].set_ylabel(f"test accuracy (%), {shots_name(shots)},\nmean over data sets")
    present = [name for name in KINDS if name in set(map(kind, table.index))]
    legend(figure, [mark(SHADES[name][0], "o", KINDS[name]) for name in present], "what is tuned (hue):", columns=len(present))
    figure.draw_without_rendering()  # the layout is known from here on
    for price, ax in axes.items():
        rows = table.loc[method_order(named[price])].dropna(subset=price).sort_values(price, kind="stable")
        _name(ax, rows, table, price, steps[price])
    return figure


def frontier(table: pd.DataFrame, price: str) -> pd.DataFrame:
    """The Pareto frontier of price and accuracy, the cheapest first."""
    ordered = table.dropna(subset=price).sort_values([price, "accuracy"], ascending=[True, False], kind="stable")
    return ordered[ordered.accuracy > ordered.accuracy.cummax().shift(fill_value=-math.inf)]


def _steps(leaders: pd.DataFrame, price: str) -> np.ndarray:
    """Corners (2k − 1, 2) of the line that joins k leaders: along the price, then up."""
    return np.stack([leaders[price].repeat(2)[1:], leaders.accuracy.repeat(2)[:-1]], axis=1)


def _price_axis(ax, values: pd.Series) -> None:
    """Make the axis logarithmic, and linear below one if some price is zero."""
    if (values <= 0).any():
        ax.set_xscale("symlog", linthresh=1, linscale=0.4)
        ax.set_xlim(left=-0.3)
    else:
        ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())


def _name(ax, named: pd.DataFrame, table: pd.DataFrame, price: str, steps: np.ndarray) -> None:
    """Write the names of the points `named` where they cover no point, no other name and not the line of `steps`."""
    panel, unit = ax.get_window_extent(), ax.figure.dpi / 72  # pixels
    points = ax.transData.transform(table[[price, "accuracy"]].dropna())
    taken = [_box(point, point, 2 * unit) for point in points]
    taken += [_box(one, other, 1.5 * unit) for one, other in itertools.pairwise(ax.transData.transform(steps))]
    for method, line in named.iterrows():
        at = (line[price], line.accuracy)
        x, y = ax.transData.transform(at)
        text = ax.annotate(
            label(method), at, (0, 0), textcoords="offset points", arrowprops=LEADER,
            fontsize=6, ha="center", va="center", path_effects=[HALO], zorder=4, **NAME,
        )  # fmt: skip
        text.set_in_layout(False)
        size = Text.get_window_extent(text)  # of the name without its line to the point
        for right, up in PLACES:
            left, low = x + right * unit - size.width / 2, y + up * unit - size.height / 2
            box = (left, low, left + size.width, low + size.height)
            way = [(x + part * right * unit, y + part * up * unit) * 2 for part in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)]
            inside = panel.x0 <= box[0] and box[2] <= panel.x1 and panel.y0 <= box[1] and box[3] <= panel.y1
            if inside and not any(_overlap(one, other) for one in (box, *way) for other in taken):
                break
        text.set_position((right, up))
        taken += [_box(box[:2], box[2:], 2 * unit), *way]


def _box(one, other, margin: float) -> tuple[float, float, float, float]:
    """(left, low, right, high) around two points, with a margin."""
    (left, right), (low, high) = sorted((one[0], other[0])), sorted((one[1], other[1]))
    return left - margin, low - margin, right + margin, high + margin


def _overlap(one: tuple, other: tuple) -> bool:
    """Whether two boxes (left, low, right, high) overlap."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
