"""Figures of a model's predictions before and after tuning: plain arrays and tables in, a figure out.

The caller fits and predicts; nothing here depends on a model. "Before" and "after" are the two sides
compared, usually zero-shot and a tuned method, on the same images.
"""

from __future__ import annotations

import math
import textwrap

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cbbt.results.plots.parts import MOST, NAME, legend, letters, mark
from cbbt.results.plots.style import MARKERS, PAGE, SERIES, in_style

RIGHT, WRONG = SERIES[0], SERIES[1]
SIDES = ("before", "after")


@in_style
def prediction_grid(images, rows: pd.DataFrame, columns: int = 6) -> Figure:
    """Images with the true class above and, below, the predictions before and after, with their probabilities.

    images: arrays (H, W, 3) or (H, W), as matplotlib's `imshow` takes them. rows: one for each image, in their order,
    columns truth, before, after (names of classes), p_before, p_after (probabilities from 0 to 1 of these predictions).
    A correct prediction has a tick and is blue, a wrong one a cross and is vermilion. Raises ValueError if the numbers of
    images and rows differ, or are 0.
    """
    if len(images) != len(rows) or not len(rows):
        raise ValueError(f"expected at least one image and one row per image, got {len(images)} images and {len(rows)} rows")
    side, above, below = PAGE / columns, 0.2, 0.62  # inches of a cell, and of the texts above and below its picture
    height = side + above + below
    lines = math.ceil(len(rows) / columns)
    figure = Figure(figsize=(PAGE, height * lines))
    figure.set_layout_engine("none")  # everything has its place
    for place, (image, row) in enumerate(zip(images, rows.itertuples())):
        line, column = divmod(place, columns)
        left, low = (column + 0.05) / columns, 1 - (line + 1) / lines + below / (height * lines)
        ax = figure.add_axes((left, low, 0.9 / columns, 0.9 * side / (height * lines)))
        ax.set_axis_off()
        ax.imshow(image, interpolation="nearest", cmap="gray")
        ax.set_title(row.truth, fontsize=6.5, pad=2, **NAME)
        for title, depth in zip(SIDES, (0.03, 0.31)):
            answer, share = getattr(row, title), getattr(row, f"p_{title}")
            right = answer == row.truth
            text = textwrap.fill(f"{'✓' if right else '✗'} {title}: {answer}, {share:.2f}", 24)
            spot = {"transform": ax.transAxes, "ha": "center", "va": "top", "fontsize": 5.5, "linespacing": 1.1}
            ax.text(0.5, -depth / side, text, color=RIGHT if right else WRONG, **spot, **NAME)
    return figure


@in_style
def confusion_pair(before: np.ndarray, after: np.ndarray, class_names: list[str]) -> Figure:
    """Two confusion matrices side by side, in percent of each true class, with a shared scale.

    before, after: counts (C, C), true classes in rows, predictions in columns. With up to twelve classes the cells show
    their numbers. A class without an image is an empty row. Raises ValueError for matrices of another shape.
    """
    count = len(class_names)
    if np.shape(before) != (count, count) or np.shape(after) != (count, count):
        raise ValueError(f"both matrices must be {count} × {count}, got {np.shape(before)} and {np.shape(after)}")
    figure = Figure(figsize=(PAGE, PAGE / 2 + 0.3))
    axes = figure.subplots(1, 2)
    common = {"vmin": 0, "vmax": 100, "cmap": "Blues", "annot": count <= 12, "fmt": ".0f"}
    common |= {"annot_kws": {"fontsize": 5.5}, "xticklabels": False, "yticklabels": False}
    for ax, title, counts in zip(axes, SIDES, (before, after)):
        totals = np.sum(counts, axis=1, keepdims=True)
        shares = 100 * np.asarray(counts) / np.where(totals, totals, np.nan)
        right = 100 * np.trace(counts) / np.sum(counts)
        sns.heatmap(shares, cbar=False, ax=ax, **common)
        ax.set(title=f"{title}: {right:.1f} % right", xlabel="answer")
        ticks = np.arange(count) + 0.5
        ax.set_xticks(ticks, labels=class_names, rotation=90, fontsize=6, **NAME)
        ax.tick_params(length=0)
    axes[0].set_yticks(ticks, labels=class_names, fontsize=6, **NAME)
    axes[0].set_ylabel("true class")
    letters(axes)
    figure.colorbar(axes[0].collections[0], ax=axes, label="percent of the true class", fraction=0.03, pad=0.01)
    return figure


@in_style
def feature_map(
    points: dict[str, np.ndarray], anchors: dict[str, np.ndarray], labels: np.ndarray, class_names: list[str]
) -> Figure:
    """Image features and the text features of their classes on two principal components: one panel per side.

    points: title of a panel, such as "before" → image features (n, E). anchors: the same titles → text features (C, E).
    The components are computed from all panels' image features together, so that panels can be compared; texts are
    projected onto them. labels: (n,), indices into class_names. Raises ValueError for more than six classes.
    """
    if len(class_names) > MOST:
        raise ValueError(f"a panel shows at most {MOST} classes, got {len(class_names)}")
    every = np.concatenate(list(points.values()))
    centre = every.mean(axis=0)
    _, spread, components = np.linalg.svd(every - centre, full_matrices=False)
    components = components[:2] * np.sign(components[:2].sum(axis=1, keepdims=True) + 1e-12)  # their sign is arbitrary: fix it
    share = 100 * spread[:2] ** 2 / (spread**2).sum()
    figure = Figure(figsize=(PAGE, PAGE / len(points) * 0.8 + 0.5))
    axes = figure.subplots(1, len(points), squeeze=False, sharex=True, sharey=True)[0]
    looks = dict(zip(class_names, zip(SERIES, MARKERS)))
    names = [class_names[label] for label in labels]
    palette, markers = ({name: pair[index] for name, pair in looks.items()} for index in (0, 1))
    for ax, (title, features) in zip(axes, points.items()):
        x, y = ((features - centre) @ components.T).T
        common = {"hue_order": class_names, "style_order": class_names, "palette": palette, "markers": markers}
        sns.scatterplot(x=x, y=y, hue=names, style=names, s=10, alpha=0.6, linewidth=0, legend=False, ax=ax, **common)
        for name, (x, y) in zip(class_names, (anchors[title] - centre) @ components.T):
            ax.plot(x, y, marker="*", markersize=10, color=palette[name], mec="black", mew=0.6)
        ax.set_xlabel(f"component 1 ({share[0]:.0f} %)")
        ax.set_title(title, **NAME)
    axes[0].set_ylabel(f"component 2 ({share[1]:.0f} %)")
    letters(axes)
    handles = [mark(*look, name) for name, look in looks.items()]
    legend(figure, handles, "small: images; stars: the texts of their classes", columns=3)
    return figure


@in_style
def moves_in_the_plane(panels: dict[str, tuple[np.ndarray, np.ndarray]], class_names: list[str]) -> Figure:
    """Where the feature of each class went in a plane: arrows from before, grey, to after, which has the class's name.

    panels: title → points (C, 2) before and after; circles, squares and further markers tell the panels apart.
    """
    figure = Figure(figsize=(PAGE, 3))
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, marker, (title, (before, after)) in zip(axes, MARKERS, panels.items()):
        axis.quiver(*before.T, *(after - before).T, angles="xy", scale_units="xy", scale=1, width=0.006, color=SERIES[1])
        axis.plot(*before.T, marker, color="#8C8C8C")
        axis.plot(*after.T, " ")  # makes room for the arrows' heads
        for name, spot in zip(class_names, after):
            axis.annotate(name, spot, (0, 5), textcoords="offset points", ha="center", fontsize=7, **NAME)
        axis.set(title=title, xlabel="first direction", ylabel="second direction")
    return figure


@in_style
def calibration_pair(bins_before: pd.DataFrame, bins_after: pd.DataFrame) -> Figure:
    """Accuracy against confidence before and after: a dot for each bin, larger for more images; dashed: calibrated.

    The title has the expected calibration error, Σ n_b |accuracy_b − confidence_b| / n (Guo et al., ICML 2017).
    Tables: a row per bin that holds an image, columns confidence, accuracy (means, percent), count. Raises ValueError
    for a table without an image.
    """
    figure = Figure(figsize=(PAGE, 2.9))
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, title, bins in zip(axes, SIDES, (bins_before, bins_after)):
        if not bins["count"].sum():
            raise ValueError(f"the bins {title} hold no image")
        error = ((bins.accuracy - bins.confidence).abs() * bins["count"]).sum() / bins["count"].sum()
        ax.plot([0, 100], [0, 100], color="0.4", linestyle="--", linewidth=0.9, zorder=1)
        ax.vlines(bins.confidence, bins.confidence, bins.accuracy, color=WRONG, linewidth=1.5, alpha=0.5, zorder=2)
        share = 100 * bins["count"] / bins["count"].sum()
        ax.scatter(bins.confidence, bins.accuracy, s=6 + 2.5 * share, color=RIGHT, edgecolor="white", linewidth=0.4, zorder=3)
        ax.set(title=f"{title}: ECE {error:.1f} %", xlabel="confidence (%)", xlim=(-3, 105), ylim=(-3, 105))
    axes[0].set_ylabel("accuracy (%)")
    letters(axes)
    legend(figure, [], "a dot for each bin, larger for more images; bars: its distance from calibrated, dashed")
    return figure
