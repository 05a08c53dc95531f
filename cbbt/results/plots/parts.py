"""Shared parts of the figures: methods' looks, grids of panels, dots with intervals, legends, the selection of rows.

A method has the same colour and marker in every figure (`cbbt.catalogue`).
"""

from __future__ import annotations

import itertools
import math
import string
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from cbbt.catalogue import CATALOGUE, SHADES, UNTUNED, label, method_order
from cbbt.results.plots.style import COLUMN, PAGE
from cbbt.results.statistics import t_tests

NAME = {"parse_math": False}  # for texts with names in them, where a $ does not start a formula
MOST = 6  # most lines in a panel that can be told apart
DASHES = {"zero_shot": "--", "zero_shot_bare": ":"}  # of horizontal lines
SMALL = {"jitter": False, "size": 2.6, "alpha": 0.6, "zorder": 2}  # dots of `dots_and_intervals`
LARGE = {"linestyle": "none", "markersize": 4, "markeredgecolor": "black", "markeredgewidth": 0.6, "zorder": 3}
BAR = {"color": "black", "linewidth": 0.9, "zorder": 1.5}
INTERVALS = "diamonds, bars: mean, 95 % t interval"  # of `dots_and_intervals`


def look(method: str) -> tuple[str, str]:
    """Colour and marker; a method of your own gets one derived from its name."""
    if method in CATALOGUE:
        return CATALOGUE[method].colour, CATALOGUE[method].marker
    number, colours, markers = zlib.crc32(method.encode()), SHADES["own"], "os^Dv"
    return colours[number % len(colours)], markers[number // len(colours) % len(markers)]


def kind(method: str) -> str:
    """The key of `SHADES` that a method has."""
    return CATALOGUE[method].kind if method in CATALOGUE else "own"


def looks(methods) -> dict:
    """Seaborn options that draw each method of the column "method" with its look."""
    order = method_order(methods)
    palette, markers = ({method: point(method)[option] for method in order} for option in ("color", "marker"))
    hue = {"hue": "method", "hue_order": order, "palette": palette}
    return hue | {"style": "method", "style_order": order, "markers": markers}


def point(method: str) -> dict:
    """Matplotlib options for a single point; methods that are elsewhere drawn as horizontal lines get a circle."""
    colour, marker = look(method)
    return {"color": colour, "marker": marker or "o", "linestyle": "none", "mec": "white", "mew": 0.4}


def short_name(dataset: str) -> str:
    return Path(dataset).name


def of_methods(table: pd.DataFrame, methods: list[str] | None) -> pd.DataFrame:
    """The rows of these methods, or of all that are tuned."""
    present = method_order(table.method)
    wanted = [method for method in present if method not in UNTUNED] if methods is None else list(methods)
    for method in wanted:
        if method not in present:
            raise ValueError(f"no row of method {method!r}; the table has {', '.join(present)}")
    if not wanted:
        raise ValueError(f"there is no tuned method to draw; the table has {', '.join(present)}")
    return table[table.method.isin(wanted)]


def of_lines(table: pd.DataFrame, methods: list[str] | None) -> pd.DataFrame:
    """Like `of_methods`, for a figure with a line per method. Raises ValueError for more than `MOST`."""
    chosen = of_methods(table, methods)
    if len(drawn := method_order(chosen.method)) > MOST:
        raise ValueError(f"a panel holds at most {MOST} lines: choose methods from {', '.join(drawn)}")
    return chosen


def at_shots(table: pd.DataFrame, shots: int) -> pd.DataFrame:
    if shots not in set(table.shots):
        raise ValueError(f"no row has shots={shots}; the table has {', '.join(map(str, sorted(set(table.shots))))}")
    return table[table.shots == shots]


class Panels(sns.FacetGrid):
    """Seaborn's grid of panels, each with its letter; those of the first row have their name as title, unchanged."""

    def set_titles(self):
        letters(self.axes.flat)
        for ax, name in zip(self.axes.flat, self.col_names):
            ax.set_title(short_name(str(name)), **NAME)

    def tight_layout(self):
        """Do nothing: the figure has a constrained layout, which leaves room for a legend."""


def panels(table: pd.DataFrame, column: str, height: float, most: int = 5, **options) -> Panels:
    """A page-wide grid with a panel for each value of a column, in its order.

    height: of a row, in inches; it holds `most` panels if there are no more. options: of seaborn's FacetGrid.
    Each panel has its own x axis; they share y unless `sharey=False`.
    """
    names = list(dict.fromkeys(table[column]))
    columns = len(names) if len(names) <= most else min(most, 4)
    grid = Panels(table, col=column, col_order=names, col_wrap=columns, sharex=False, **options)
    size = PAGE if columns > 1 else COLUMN, height * math.ceil(len(names) / columns) + 0.4
    grid.figure.set_size_inches(size)
    return grid


def letters(axes) -> None:
    """Label the panels of a figure a, b, c, …; a single one needs no label."""
    axes = list(axes)
    for ax, letter in zip(axes, string.ascii_lowercase if len(axes) > 1 else ""):
        ax.set_title(letter, loc="left", fontweight="bold")


def lines(ax, table: pd.DataFrame, x: str, y: str, dense: bool = False) -> None:
    """A line for each method: the mean of y over seeds at each x, with a band of ± one sd.

    A dense line has markers a quarter of the panel apart, with another offset for each
    method, so that overlapping lines remain visible.
    """
    options = looks(table.method) | {"dashes": False, "err_kws": {"alpha": 0.15, "linewidth": 0}}
    sns.lineplot(table, x=x, y=y, errorbar="sd", legend=False, ax=ax, **options)
    ax.set(xlabel="", ylabel="")
    for place, line in enumerate(ax.lines if dense else ()):
        line.set_markevery((0.04 * (1 + place), 0.25))


def dots_and_intervals(ax, table: pd.DataFrame, x: str, y: str, order: list, colours: dict) -> None:
    """Every value a dot; diamonds and bars: the mean with its 95 % t interval, as in `statistics.difference_table`.

    order: values of the categorical column. colours: of these values.
    """
    hue = y if set(order) & set(table[y]) else x
    common = {"data": table, "x": x, "y": y, "order": order, "legend": False, "ax": ax}
    sns.stripplot(**common, hue=hue, palette=colours, **SMALL)
    intervals(ax, table, x, y, order, hue, colours)


def intervals(ax, table: pd.DataFrame, x: str, y: str, order: list, hue: str, colours: dict, markers="D") -> None:
    """Means with 95 % t intervals; if `hue` is neither x nor y, its values are drawn side by side."""
    common = {"data": table, "x": x, "y": y, "order": order, "hue": hue, "palette": colours, "legend": False, "ax": ax}
    dodge = 0.35 if hue not in (x, y) and len(colours) > 1 else False
    sns.pointplot(**common, dodge=dodge, errorbar=_interval, markers=markers, err_kws=BAR, **LARGE)
    ax.set(xlabel="", ylabel="")


def _interval(values) -> tuple[float, float]:
    tests = t_tests(pd.Series(np.asarray(values)))
    return tests["low"], tests["high"]


def symbols(ax, table: pd.DataFrame, x: str, y: str, names: list[str]) -> list[Line2D]:
    """A grey symbol for each row of the table, by its column "dataset"; returns the legend entries of these names."""
    shapes = dict(zip(names, itertools.cycle("os^vP*<>Xph8d")))
    rows = table[table.dataset.isin(names)]
    sns.scatterplot(rows, x=x, y=y, style="dataset", markers=shapes, color="0.45", s=13, legend=False, ax=ax, zorder=2)
    ax.set(xlabel="", ylabel="")
    return [mark("0.45", shape, short_name(name)) for name, shape in shapes.items()]


def category_axis(ax, names: list[str]) -> None:
    """A row for each name, the first on top."""
    ax.set_yticks(range(len(names)), labels=names, **NAME)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)


def tick_values(axis, values) -> None:
    """Set ticks at exactly these values, labelled with their numbers."""
    values = sorted(set(values))
    axis.set_ticks(values, labels=[f"{value:g}" for value in values])
    axis.set_minor_locator(NullLocator())


def handle(method: str, linestyle: str = "-") -> Line2D:
    """A method's legend entry: a line with its marker, or for "none" a point."""
    look_of = point(method) if linestyle == "none" else point(method) | {"marker": look(method)[1], "linestyle": linestyle}
    return Line2D([], [], label=label(method), **look_of)


def mark(colour: str, marker: str, name: str) -> Line2D:
    """Another legend entry: a point."""
    return Line2D([], [], color=colour, marker=marker, linestyle="none", label=name, mec="white", mew=0.4)


def legend(figure: Figure, handles: list, note: str, columns: int | None = None) -> None:
    """One legend below all panels: a note, and the entries."""
    columns = columns or max(1, round(figure.get_figwidth() / 1.7))
    drawn = figure.legend(handles=handles, loc="outside lower center", ncols=columns, title=note)
    for text in (drawn.get_title(), *drawn.get_texts()):
        text.set(**NAME)


def band_note(table: pd.DataFrame) -> str:
    """The note that explains lines and bands."""
    counts = table.groupby("shots").seed.nunique()
    least, most = counts.min(), counts.max()
    if most == 1:
        return "lines: one seed"
    return "lines: means; bands: ± one sd over " + (f"{most} seeds" if least == most else f"{least} to {most} seeds")
