"""What several figures share: the panels, a method's line, the legend, the selection of rows.

A method has the same colour and marker in every figure (`cbbt.catalogue`).
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cbbt.catalogue import CATALOGUE, UNTUNED, label, method_order
from cbbt.results.plots.style import COLOURS, COLUMN, MARKERS, PAGE

NAME = {"parse_math": False}  # of a text with a name in it: a $ there begins no formula


def look(method: str) -> tuple[str, str | tuple]:
    """Colour and marker; a method of your own gets one by its name."""
    if method in CATALOGUE:
        return CATALOGUE[method].colour, CATALOGUE[method].marker
    number = zlib.crc32(method.encode())
    return COLOURS[number % len(COLOURS)], MARKERS[number // len(COLOURS) % len(MARKERS)]


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


def at_shots(table: pd.DataFrame, shots: int) -> pd.DataFrame:
    if shots not in set(table.shots):
        raise ValueError(f"no row has shots={shots}; the table has {', '.join(map(str, sorted(set(table.shots))))}")
    return table[table.shots == shots]


def panel_axes(n: int, xlabel: str, ylabel: str = "test accuracy (%)", columns: int | None = None, sharey: bool = False):
    """A page-wide figure with n panels, its axes, and the axes that are left over."""
    columns = min(n, columns or (3 if n <= 6 else 4))
    rows = math.ceil(n / columns)
    width = PAGE if columns > 1 else COLUMN
    figure = Figure(figsize=(width, (1.65 if columns > 1 else 2.3) * rows + 0.55))
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat)
    for index, ax in enumerate(axes[:n]):
        ax.yaxis.set_major_locator(MaxNLocator(5))
        if index % columns == 0:
            ax.set_ylabel(ylabel, **NAME)
        if index + columns >= n:
            ax.set_xlabel(xlabel)
    for ax in axes[n:]:
        ax.set_axis_off()
    return figure, axes[:n], axes[n:]


def line(ax, table: pd.DataFrame, x: str, y: str, method: str, dense: bool = False) -> None:
    """Mean of y over seeds at each x, with a band of ± one sd.

    A dense line has a marker at every fifth of the panel, where each method starts
    at a place of its own, so that lines on top of each other are still seen.
    """
    colour, marker = look(method)
    over_seeds = table.groupby(x)[y].agg(["mean", "std"])
    marks = (0.03 * (1 + method_order({*CATALOGUE, method}).index(method)), 0.25) if dense else None
    ax.plot(over_seeds.index, over_seeds["mean"], color=colour, marker=marker, markevery=marks, mec="white", mew=0.4)
    band = over_seeds.dropna()
    ax.fill_between(band.index, band["mean"] - band["std"], band["mean"] + band["std"], color=colour, alpha=0.15, linewidth=0)


def handle(method: str, linestyle: str = "-") -> Line2D:
    colour, marker = look(method)
    return Line2D([], [], color=colour, marker=marker, linestyle=linestyle, label=label(method))


def legend(figure: Figure, spare: list, handles: list, note: str) -> None:
    """One legend: in a panel left over, or below the panels."""
    if spare:
        drawn = spare[0].legend(handles=handles, loc="center", title=note.replace("; ", "\n"), title_fontsize=7)
    else:
        columns = 4 if figure.get_figwidth() > COLUMN else 2
        drawn = figure.legend(handles=handles, loc="outside lower center", ncols=columns, title=note, title_fontsize=7)
    for text in (drawn.get_title(), *drawn.get_texts()):
        text.set(**NAME)


def band_note(table: pd.DataFrame) -> str:
    counts = table.groupby("shots").seed.nunique()
    least, most = counts.min(), counts.max()
    if most == 1:
        return "one seed"
    return f"mean ± sd over {most} seeds" if least == most else f"mean ± sd over {least} to {most} seeds"
