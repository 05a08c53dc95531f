"""The field's accuracy against its price, in one figure; the table of runs in."""

from __future__ import annotations

import itertools
import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import NullLocator

from cbbt.catalogue import UNTUNED, label, method_order
from cbbt.results.peers import BLOCKS, FEATURES, LOSSES, PROMPTS, UNSAID, WHITE, block, shots_name
from cbbt.results.plots.parts import NAME, look
from cbbt.results.plots.style import PAGE, in_style
from cbbt.results.tables import SCORE, mean_over_datasets, require, scores

PRICES = {"class_prompts": "class prompts encoded", "fit_seconds": "seconds of the fit", "learned": "numbers learned"}
COLOURS = {WHITE: "#8C8C8C", FEATURES: "#0072B2", PROMPTS: "#D55E00", LOSSES: "#009E73", UNSAID: "#000000"}  # of blocks
RINGS = {"zero_shot": "none", "zero_shot_bare": "0.8"}  # what fills the marks of those that have none in other figures
LONGEST = 8  # entries of a column of the legend
LEADER = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}  # from a name to its point
HALO = withStroke(linewidth=1.5, foreground="white")
LEAST_SECONDS = 0.01  # as the tables are rounded


@in_style
def accuracy_against_price(runs: pd.DataFrame, shots: int) -> Figure:
    """Mean accuracy over data sets against what the fit cost: a panel per price, a point per method.

    A colour is a block of methods that need the same of the box (`cbbt.results.peers.BLOCKS`), a marker the method, as in
    other figures. The line joins the methods, white box apart, than which none is both as cheap and more accurate; they are
    named, and so is the most accurate of each block. Means over seeds; methods without a seed that has every data set are
    left out. Needs columns dataset, backbone, method, shots, seed, test_accuracy, class_prompts, fit_seconds, learned.
    """
    require(runs, [SCORE, *PRICES])
    accuracy = mean_over_datasets(scores(runs, shots)).mean().dropna()
    costs = runs[runs.shots.isin([0, shots])].groupby("method")[list(PRICES)].mean()
    table = costs.assign(fit_seconds=costs.fit_seconds.clip(lower=LEAST_SECONDS), accuracy=accuracy).dropna(subset="accuracy")
    black = table[[block(method) != WHITE for method in table.index]]
    best = black.groupby(block).accuracy.idxmax()
    first = {price: frontier(black, price) for price in PRICES}
    blocks = {name: [method for method in method_order(table.index) if block(method) == name] for name in BLOCKS}
    columns = {name: math.ceil(len(methods) / LONGEST) for name, methods in blocks.items() if methods}  # of the legend
    entries = 0.145 * max(math.ceil(len(blocks[name]) / number) for name, number in columns.items()) + 0.25
    figure = Figure(figsize=(PAGE, 3.2 + entries))
    above, below = figure.subfigures(2, 1, height_ratios=[3.2, entries])
    axes = dict(zip(PRICES, above.subplots(1, len(PRICES), sharey=True)))
    for price, ax in axes.items():
        leaders = first[price]
        ax.plot(leaders[price], leaders.accuracy, drawstyle="steps-post", marker="", color="0.35", linewidth=1.0, zorder=1)
        for method, line in table.dropna(subset=price).iterrows():
            ax.plot(line[price], line.accuracy, zorder=3 if method in leaders.index else 2, **_mark(method))
        _price_axis(ax, table[price])
        ax.set_xlabel(PRICES[price])
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.22 * (high - low))  # room for names
    axes["class_prompts"].set_ylabel(f"test accuracy (%), {shots_name(shots)},\nmean over data sets")
    for ax, name in zip(below.subplots(1, len(columns), squeeze=False, width_ratios=list(columns.values()))[0], columns):
        _legend(ax, name, blocks[name], columns[name])
    figure.draw_without_rendering()  # the layout is known from here on
    for price, ax in axes.items():
        named = black.loc[method_order({*first[price].index, *best})].dropna(subset=price)
        _name(ax, named.sort_values(price, kind="stable"), table, price)
    return figure


def frontier(table: pd.DataFrame, price: str) -> pd.DataFrame:
    """The rows than which no other is as cheap and more accurate, or cheaper and as accurate; the cheapest first."""
    ordered = table.dropna(subset=price).sort_values([price, "accuracy"], ascending=[True, False], kind="stable")
    return ordered[ordered.accuracy > ordered.accuracy.cummax().shift(fill_value=-math.inf)]


def _mark(method: str) -> dict:
    """Matplotlib's options of a method's point; those that have no marker in other figures are rings."""
    mark = {"linestyle": "none", "color": COLOURS[block(method)], "marker": look(method)[1], "markersize": 5, "mew": 0.9}
    return mark | ({"marker": "o", "markersize": 3, "mfc": RINGS[method]} if method in UNTUNED else {})


def _legend(ax, name: str, methods: list[str], columns: int) -> None:
    """A block's methods, in the place of a panel."""
    ax.set_axis_off()
    handles = [Line2D([], [], label=label(method), **_mark(method)) for method in methods]
    layout = {"loc": "upper left", "ncols": columns, "alignment": "left", "fontsize": 6.5, "title_fontsize": 7}
    spaces = {"borderaxespad": 0, "borderpad": 0, "columnspacing": 0.8, "handletextpad": 0.2}
    drawn = ax.legend(handles=handles, title=name, **layout, **spaces)
    drawn.get_title().set_color(COLOURS[name])
    for text in (drawn.get_title(), *drawn.get_texts()):
        text.set(**NAME)


def _price_axis(ax, values: pd.Series) -> None:
    """Logarithmic; linear below one where something costs nothing."""
    if (values <= 0).any():
        ax.set_xscale("symlog", linthresh=1, linscale=0.4)
        ax.set_xlim(left=-0.3)
    else:
        ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())


def _name(ax, named: pd.DataFrame, table: pd.DataFrame, price: str) -> None:
    """Write the names of the points `named` where they cover no point and no other name."""
    panel, point = ax.get_window_extent(), ax.figure.dpi / 72  # pixels
    taken = [
        (x - 2 * point, y - 2 * point, x + 2 * point, y + 2 * point)
        for x, y in ax.transData.transform(table[[price, "accuracy"]].dropna())
    ]
    for method, line in named.iterrows():
        x, y = ax.transData.transform((line[price], line.accuracy))
        text = ax.annotate(
            label(method), (line[price], line.accuracy), (0, 0), textcoords="offset points", arrowprops=LEADER,
            fontsize=6, color=COLOURS[block(method)], ha="center", va="center", path_effects=[HALO], zorder=4, **NAME,
        )  # fmt: skip
        text.set_in_layout(False)
        size = Text.get_window_extent(text)  # of the name alone, without its line to the point
        for right, up in sorted(itertools.product(range(-60, 61, 6), range(9, 90, 3)), key=lambda place: math.hypot(*place)):
            left, low = x + right * point - size.width / 2, y + up * point - size.height / 2
            box = (left, low, left + size.width, low + size.height)
            way = [(x + part * right * point, y + part * up * point) * 2 for part in (0.3, 0.5, 0.7)]  # of the line to the point
            inside = panel.x0 <= box[0] and box[2] <= panel.x1 and box[3] <= panel.y1
            if inside and not any(_overlap(one, other) for one in (box, *way) for other in taken):
                break
        text.set_position((right, up))
        taken += [box, *way]


def _overlap(one: tuple, other: tuple) -> bool:
    """Whether two boxes (left, low, right, high) overlap."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
