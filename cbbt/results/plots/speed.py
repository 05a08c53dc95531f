"""Figures of speed, from the tables of `benchmarks/speed.py` and by count."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from cbbt.results.plots.parts import NAME, letters, tick_values
from cbbt.results.plots.style import MARKERS, PAGE, SERIES, in_style

AXES = {  # column of the table of scaling → name in the figure
    "directions": "directions q",
    "classes": "classes C",
    "context_length": "context vectors M",
    "images": "images scored",
}


@in_style
def computed_positions(positions: np.ndarray) -> Figure:
    """A picture of `cbbt.results.speed.position_map`: a row per prompt, a column per position."""
    figure = Figure(figsize=(PAGE, 2.4))
    axis = figure.subplots()
    colours = ["#EDEDED", SERIES[0], "#9CC9E5"]
    look = {"cmap": colours, "vmin": 0, "vmax": 2, "cbar": False, "xticklabels": 10, "yticklabels": 10, "linewidths": 0.2}
    sns.heatmap(positions, ax=axis, **look)
    title = "dark: computed; light: computed once, for a prompt above; grey: never needed"
    axis.set(xlabel="position", ylabel="prompt", title=title)
    return figure


@in_style
def text_speed(table: pd.DataFrame) -> Figure:
    """Speed-up over the padded and the cut path: a panel per backbone, log scale.

    Needs columns backbone, classes, context_length, over_padded, over_cut (speed_text.csv).
    """
    backbones = list(dict.fromkeys(table.backbone))
    figure = Figure(figsize=(PAGE, 2.4))
    axes = figure.subplots(1, len(backbones), sharey=True, squeeze=False)[0]
    for ax, backbone in zip(axes, backbones):
        rows = table[table.backbone == backbone]
        for index, (length, line) in enumerate(rows.groupby("context_length")):
            look = {"color": SERIES[index], "marker": MARKERS[index]}
            ax.plot(line.classes, line.over_padded, label=f"M = {length}, vs 77 tokens", **look)
            ax.plot(
                line.classes,
                line.over_cut,
                label=f"M = {length}, vs cut to length",
                linestyle=":",
                markerfacecolor="white",
                **look,
            )
        ax.set(xscale="log", yscale="log", xlabel="classes")
        ax.set_title(backbone, **NAME)
        tick_values(ax.xaxis, rows.classes)
        tick_values(ax.yaxis, [2, 5, 10, 20, 50])
    letters(axes)
    axes[0].set_ylabel("speed-up (×)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center")
    return figure


@in_style
def scaling(table: pd.DataFrame) -> Figure:
    """Seconds of a step against each size, a panel each; dashed: proportional to the size.

    Needs columns axis, seconds, and the sizes it names (speed_scaling.csv).
    """
    figure = Figure(figsize=(PAGE, 1.9))
    for ax, (name, title) in zip(figure.subplots(1, len(AXES), sharey=True), AXES.items()):
        rows = table[table.axis == name]
        ax.plot(rows[name], rows.seconds, color=SERIES[0], marker="o")
        last = rows.iloc[-1]
        dashed = {"color": "0.5", "marker": "", "linestyle": "--", "linewidth": 0.9}
        ax.plot(rows[name], last.seconds * rows[name] / last[name], label="proportional", **dashed)
        ax.set(xscale="log", yscale="log", xlabel=title)
        tick_values(ax.xaxis, rows[name])
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(NullLocator())
    letters(figure.axes)
    figure.axes[0].set_ylabel("seconds per step")
    figure.axes[0].legend(loc="upper left")
    figure.axes[0].set_ylim(table.seconds.min() / 2, table.seconds.max() * 2)
    return figure
