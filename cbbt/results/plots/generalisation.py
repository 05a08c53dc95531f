"""Figures of results beyond the own test split, from tables of `cbbt.results.generalisation`.

A method that does not transfer is drawn at its initial prompt.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cbbt.catalogue import UNTUNED, label, method_order
from cbbt.results.generalisation import BASE, NEW_CLASSES, base_to_new, harmonic_mean, over_data_sets
from cbbt.results.plots.parts import NAME, handle, legend, panels, point
from cbbt.results.plots.style import COLUMN, PAGE, SERIES, in_style
from cbbt.results.tables import ALL, dataset_order


@in_style
def on_the_way(table: pd.DataFrame) -> Figure:
    """Accuracy (percent) on base and on new classes, and their harmonic mean H, against the steps of one fit (the index)."""
    figure = Figure(figsize=(COLUMN, 2.0))
    ax = figure.subplots()
    sns.lineplot(table, palette=SERIES[: table.shape[1]], ax=ax)
    ax.set(xlabel=table.index.name, ylabel="test accuracy (%)")
    sns.move_legend(ax, "center left", bbox_to_anchor=(1, 0.5))
    return figure


@in_style
def base_and_new(places: pd.DataFrame) -> Figure:
    """Accuracy on new classes against that on base classes: a panel per data set and one over all; means over seeds.

    Grey curves join points of one harmonic mean; the cross is the bare prompt, nothing tuned.
    `places`: of `by_place`. Raises ValueError without runs on base classes.
    """
    halves = places[places.place.isin([BASE, NEW_CLASSES])]
    names = dataset_order(halves)
    panels_of = {name: halves[halves.dataset == name] for name in names} | ({ALL: halves} if len(names) > 1 else {})
    table = pd.concat({name: base_to_new(part) for name, part in panels_of.items()}, names=["panel", "method"]).reset_index()
    grid = panels(table, "panel", 1.7, most=3, sharey=False)
    for name, ax in grid.axes_dict.items():
        bare = over_data_sets(panels_of[name], "zero_shot").mean()
        for method, line in table[table.panel == name].set_index("method").iterrows():
            ax.plot(line.base, line.new, markersize=5, **point(method))
        ax.plot(bare[BASE], bare[NEW_CLASSES], color="black", marker="+", markersize=7)
        ax.margins(0.12)  # or points lie on the frame
        (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
        mesh = np.meshgrid(np.linspace(max(left, 1), right, 60), np.linspace(max(low, 1), high, 60))
        curves = ax.contour(*mesh, harmonic_mean(*mesh), levels=6, colors="0.8", linewidths=0.6, zorder=0)
        ax.clabel(curves, fontsize=5.5, fmt="%.0f", zorder=0)
    grid.set_axis_labels("base classes (%)", "new classes (%)")
    handles = [handle(method, "none") for method in method_order(halves.method)]
    handles.append(Line2D([], [], linestyle="none", color="black", marker="+", label="Zero-shot, bare prompt"))
    legend(grid.figure, handles, "grey: equal harmonic mean; means over seeds")
    return grid.figure


@in_style
def gains(places: pd.DataFrame) -> Figure:
    """Points over the bare prompt on the same images: a row per tuned method, a column per place; means over data sets."""
    table = over_data_sets(places[~places.method.isin(UNTUNED)], "gain")
    return _cells(table, "gain over the bare prompt (points)", "RdBu", 15.0, "{:+.1f}")


@in_style
def services(table: pd.DataFrame) -> Figure:
    """Test accuracy with each service: colours are points lost against the full one, a dash marks methods that it refuses.

    `table`: of `by_service`, with the column "full".
    """
    return _cells(table, "change from the full service (points)", "RdBu", 15.0, "{:.1f}", table.sub(table["full"], axis=0))


def _cells(table, title: str, colours: str, most: float, form: str, shade=None) -> Figure:
    """A table as a heat map: in each cell its number, and a colour from −most to most by `shade` (the number itself if None)."""
    shade = table if shade is None else shade
    texts = table.map(form.format).replace("-", "−", regex=True)
    figure = Figure(figsize=(PAGE, 0.9 + 0.21 * len(table)))
    ax = figure.subplots()
    bar = {"label": title, "fraction": 0.03, "pad": 0.01}
    common = {"vmin": -most, "vmax": most, "fmt": "", "annot_kws": {"fontsize": 6.5}, "cbar_kws": bar, "ax": ax}
    sns.heatmap(shade.astype(float), annot=texts, cmap=colours, **common)
    for row, column in np.argwhere(shade.isna()):  # cells that seaborn leaves white: no number, or nothing to compare with
        text = "–" if pd.isna(table.iat[row, column]) else texts.iat[row, column]
        ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=6.5)
    ax.set_yticks(np.arange(len(table)) + 0.5, labels=[label(name) for name in table.index], **NAME)
    ax.set_xticks(np.arange(table.shape[1]) + 0.5, labels=[name.replace(" ", "\n", 1) for name in table], rotation=0)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.set(xlabel="", ylabel="")
    ax.collections[0].colorbar.ax.set_ylim(max(-most, np.floor(np.nanmin(shade))), most)
    return figure


@in_style
def calibration(places: pd.DataFrame) -> Figure:
    """Expected calibration error of each method at each place; means over data sets."""
    return _cells(over_data_sets(places, "ece"), "expected calibration error (%)", "RdBu_r", 40.0, "{:.1f}")
