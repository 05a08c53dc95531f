"""Figures of the linearised features, drawn from the tables of `cbbt.gradients.answers` alone."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cbbt.results.plots.parts import legend, letters
from cbbt.results.plots.style import COLUMN, MARKERS, PAGE, SERIES, in_style


@in_style
def local_model_error(table: pd.DataFrame) -> Figure:
    """Error of the predicted text features against the length of the step, both logarithmic; dashed, a line of slope 2."""
    figure = Figure(figsize=(COLUMN, 2.3))
    axis = figure.subplots()
    for index, (q, rows) in enumerate(table.groupby("q")):
        look = {"color": SERIES[index], "marker": MARKERS[index], "label": f"$q = {q}$", "legend": False}
        sns.lineplot(rows, x="length", y="error", errorbar=("pi", 100), err_kws={"alpha": 0.13, "linewidth": 0}, ax=axis, **look)
    means = table.groupby("length").error.mean()
    lengths = means.index[means.index <= 1]
    middle = lengths[len(lengths) // 2]
    line = means[middle] * (lengths / middle) ** 2
    axis.plot(lengths, line, color="black", marker="", linestyle="--", linewidth=1, label="slope 2")
    axis.set(xscale="log", yscale="log", xlabel="length of the step / of a context vector", ylabel=r"error $\|\hat y - y\|$")
    axis.legend()
    return figure


@in_style
def descents(table: pd.DataFrame) -> Figure:
    """Loss on the support and validation accuracy against prompt sets queried; every seed a thin line."""
    quantities = {"loss": "loss on the support", "accuracy": "validation accuracy (%)"}
    figure = Figure(figsize=(PAGE, 2.7))
    axes = figure.subplots(1, 2, sharex=True)
    for axis, (quantity, label) in zip(axes, quantities.items()):
        for index, (name, rows) in enumerate(table.groupby("descent", sort=False)):
            for _, seed in rows.groupby("seed"):
                axis.plot(seed.prompt_sets, seed[quantity], color=SERIES[index], marker="", linewidth=0.4, alpha=0.6)
            mean = rows.groupby("prompt_sets")[quantity].mean()
            every = max(len(mean) // 6, 1)
            axis.plot(mean.index, mean, color=SERIES[index], marker=MARKERS[index], markevery=every, label=name)
        axis.set(xlabel="prompt sets queried", ylabel=label)
        axis.set_xscale("symlog", linthresh=10)
    letters(axes)
    legend(figure, axes[0].get_legend_handles_labels()[0], "thin: seeds; thick: their mean", columns=3)
    return figure
