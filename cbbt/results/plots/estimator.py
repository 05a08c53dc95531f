"""The pictures of notebook 2a, where the estimator is built from scratch: arrays and small tables in, a figure out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cbbt.results.plots.style import PAGE, SERIES, in_style

GREY, LIGHT = "#8C8C8C", "#C0C0C0"


@in_style
def slopes_in_the_plane(points, losses, x, directions, slopes, arrows: dict) -> Figure:
    """A loss on the plane with directions from a point, coloured by slope; beside it each direction times its slope.

    points: (n, 2), with their losses (n,), for the contour lines. x: (2,). directions: (q, 2), with their slopes (q,).
    arrows: the name of the true gradient, of its estimate → (2,), drawn thick.
    """
    figure = Figure(figsize=(PAGE, 3.2))
    left, right = figure.subplots(1, 2)
    directions, slopes = np.asarray(directions), np.asarray(slopes)
    left.tricontour(*np.asarray(points).T, np.asarray(losses), levels=14, colors=LIGHT, linewidths=0.7)
    starts = np.tile(np.asarray(x), (len(directions), 1))
    left.quiver(*starts.T, *directions.T, slopes, cmap="coolwarm", clim=(-2.5, 2.5), scale=3.2, width=0.009)
    left.plot(*x, "o", color="black")
    left.set(title=f"{len(directions)} directions, coloured by slope", aspect="equal")
    for tip in slopes[:, None] * directions:
        right.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "->", "color": GREY})
    for colour, (name, tip) in zip(("black", SERIES[1]), arrows.items()):
        right.annotate("", np.asarray(tip), (0, 0), arrowprops={"arrowstyle": "->", "color": colour, "lw": 2})
        right.plot([], [], color=colour, marker="", label=name)
    right.plot([], [], color=GREY, marker="", label="slope times direction")
    right.set(title="slope times direction, and their mean", aspect="equal", xlim=(-1.9, 1.1), ylim=(-1.2, 1.8))
    right.legend(loc="lower left")
    return figure


@in_style
def clouds_of_estimates(clouds: dict, gradient) -> Figure:
    """Estimates in the plane, a panel for each number of directions, with their mean and the true gradient.

    clouds: q → estimates (n, 2). gradient: (2,).
    """
    figure = Figure(figsize=(PAGE, 2.7))
    panels = figure.subplots(1, len(clouds), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (q, cloud) in zip(panels, clouds.items()):
        x, y = np.asarray(cloud).T
        sns.scatterplot(x=x, y=y, s=6, color=SERIES[1], edgecolor=None, alpha=0.5, ax=axis)
        axis.plot(*gradient, "X", color="black", markersize=8, label="true gradient")
        axis.plot(x.mean(), y.mean(), "+", color=SERIES[3], markersize=9, mew=2, label=f"mean of {len(x)} estimates")
        axis.set(title=f"q = {q}", aspect="equal", xlabel="first axis", ylabel="second axis")
    panels[0].legend(loc="lower left")
    return figure


@in_style
def cosine_over_theory(table: pd.DataFrame, dimension: int) -> Figure:
    """Measured cosines against q as mean and standard deviation, over those of theory; dotted, √E cos².

    Needs columns q, cosine, and theory (the expected cosine); a row per repeat.
    """
    repeats, theory = table.groupby("q").cosine.size().iloc[0], table.groupby("q").theory.first()
    figure = Figure(figsize=(4.4, 2.6))
    axis = figure.subplots()
    dots = {"errorbar": "sd", "err_style": "bars", "marker": "o", "linestyle": ""}
    sns.lineplot(table, x="q", y="cosine", label=f"measured: mean and sd of {repeats}", ax=axis, **dots)
    axis.plot(theory.index, theory, color="black", marker="", label="theory, from q and d alone")
    root = (theory.index / (theory.index + dimension - 1)) ** 0.5
    axis.plot(theory.index, root, ":", color="black", marker="", label=r"$\sqrt{q/(q+d-1)}$")
    axis.set(xscale="log", ylim=(-0.2, 1), xlabel="q, directions", ylabel="cosine with the true gradient")
    axis.axvline(dimension, color=GREY, linestyle="--", linewidth=0.8)
    axis.annotate("q = d", (dimension, -0.15), fontsize=7)
    axis.legend(loc="upper left")
    return figure


@in_style
def losses_along(table: pd.DataFrame) -> Figure:
    """Loss against the length of the step: a line per way, of the table of `cbbt.gradients.landscape.losses_along`."""
    figure = Figure(figsize=(4.4, 2.2))
    axis = figure.subplots()
    sns.lineplot(table, palette=SERIES[: table.shape[1]], marker="", markers=False, ax=axis)
    axis.set(xlabel="length of the step", ylabel="loss of the batch")
    return figure


@in_style
def cosine_by_family(table: pd.DataFrame, epsilon: float) -> Figure:
    """Cosine against ε as mean and standard deviation, a line per family of directions; dashed, the paper's `epsilon`.

    Needs columns family, epsilon, cosine; a row per repeat.
    """
    figure = Figure(figsize=(4.4, 2.4))
    axis = figure.subplots()
    look = {"hue": "family", "style": "family", "markers": True, "palette": SERIES[: table.family.nunique()]}
    sns.lineplot(table, x="epsilon", y="cosine", errorbar="sd", ax=axis, **look)
    axis.axvline(epsilon, color=GREY, linestyle="--", linewidth=0.8)
    axis.set(xscale="log", ylim=(0, 1), xlabel="step ε (dashed: the paper's)", ylabel="cosine with the true gradient")
    return figure
