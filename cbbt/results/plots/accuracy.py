"""Figures of accuracy against shots and queries: one function per figure, a tidy table in, a figure out.

Nothing here depends on a model or a data set: `runs` is `records.runs_table` (or
figures/data/runs.csv), `curves` is `records.curves_table` (figures/data/curves.csv).
Bands and error bars are sample standard deviations over seeds unless a figure says
otherwise; with one seed there is none. Every function raises ValueError for a
missing column, for mixed backbones, or for two rows of one run (see `tables.require`).
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter

from cbbt.catalogue import UNTUNED, method_order
from cbbt.results.formatting import shots_name
from cbbt.results.plots.parts import (
    DASHES,
    NAME,
    Panels,
    at_shots,
    band_note,
    handle,
    legend,
    letters,
    lines,
    look,
    of_lines,
    of_methods,
    panels,
    short_name,
    tick_values,
)
from cbbt.results.plots.style import PAGE, in_style
from cbbt.results.tables import RUN, SCORE, dataset_order, require

CURVES = {  # column of the table of curves → its axis label; the accuracies share their axis
    "train_loss": "training loss",
    "class_prompts": "class prompts encoded",
    "val_accuracy": "validation accuracy (%)",
    "test_accuracy": "test accuracy (%)",
}
PUBLISHED = {"linestyle": ":", "marker": "o", "markersize": 3.2, "markerfacecolor": "white"}  # numbers of another model
GRAINS = {"loss_queries": "loss queries", "class_prompts": "class prompts encoded", "images": "images encoded"}
MEAN = "mean"  # over the data sets


@in_style
def accuracy_against_shots(runs: pd.DataFrame, methods: list[str] | None = None) -> Figure:
    """Test accuracy against shots per class: a panel per data set, and one for their mean, with a shared axis.

    Lines are means over seeds, bands ± one standard deviation, untuned methods dashed or
    dotted lines. The mean panel holds only seeds that have every data set. Needs columns
    dataset, backbone, method, shots, seed, test_accuracy. Raises ValueError for more than six methods.
    """
    require(runs, [SCORE])
    tuned = of_lines(runs, methods)
    untuned = {name: runs[runs.method == name].groupby("dataset")[SCORE].mean() for name in UNTUNED if name in set(runs.method)}
    datasets = dataset_order(tuned)
    wide = tuned.pivot(index=["method", "shots", "seed"], columns="dataset", values=SCORE)[datasets]
    if len(datasets) > 1:
        wide[MEAN] = wide[datasets].mean(axis=1, skipna=False)
        for values in untuned.values():
            values[MEAN] = values.reindex(datasets).mean(skipna=False)
    table = wide.melt(var_name="panel", value_name=SCORE, ignore_index=False).dropna().reset_index()
    grid = panels(table, "panel", 1.8)
    for name, ax in grid.axes_dict.items():
        lines(ax, table[table.panel == name], "shots", SCORE)
        for method, values in untuned.items():
            if pd.notna(values.get(name)):
                ax.axhline(values[name], color=look(method)[0], linestyle=DASHES[method], zorder=1)
        _shots_axis(ax, tuned)
    grid.set_axis_labels("shots per class", "test accuracy (%)")
    handles = [handle(method) for method in method_order(tuned.method)] + [handle(name, DASHES[name]) for name in untuned]
    legend(grid.figure, handles, band_note(tuned) + (f"; mean of {len(datasets)} data sets" if len(datasets) > 1 else ""))
    return grid.figure


@in_style
def accuracy_by_kind(runs: pd.DataFrame, kinds: dict[str, list[str]], references: pd.DataFrame) -> Figure:
    """Test accuracy against shots per class: a row per data set, a column per kind of method, with published numbers.

    Lines are means over seeds, bands ± one standard deviation, untuned methods dashed or dotted
    lines. Published numbers of another model are dotted, with open marks at their shots, in the colour
    of their method and in each column that has it. Panels of a row share their axis. Needs columns
    dataset, backbone, method, shots, seed, test_accuracy. Raises ValueError for a kind of more than six tuned methods.

    kinds: title of a column → its methods. references: of `cbbt.results.published.references`, of one backbone or empty.
    """
    require(runs, [SCORE])
    tuned = of_methods(runs, None)
    parts = {title: of_methods(runs, methods) for title, methods in kinds.items()}
    table = pd.concat([part.assign(kind=title) for title, part in parts.items()])
    grid = Panels(table, row="dataset", col="kind", sharey="row")
    grid.figure.set_size_inches(PAGE, 1.7 * len(grid.row_names) + 1.6)
    for (name, title), ax in grid.axes_dict.items():
        own = parts[title][parts[title].dataset == name]
        if len(moved := own[~own.method.isin(UNTUNED)]):
            lines(ax, of_lines(moved, None), "shots", SCORE)
        for method, rows in own[own.method.isin(UNTUNED)].groupby("method"):
            ax.axhline(rows[SCORE].mean(), color=look(method)[0], linestyle=DASHES[method], zorder=1)
        theirs = references[(references.dataset == name) & references.method.isin(parts[title].method)]
        _published(ax, theirs[theirs.shots.isin([0, *tuned.shots])])
        _shots_axis(ax, tuned)
        ax.yaxis.set_major_locator(MaxNLocator(5))
    for ax, name in zip(grid.axes[:, 0], grid.row_names):
        ax.set_ylabel(f"{short_name(name)}: accuracy (%)", **NAME)
    for below, part in zip(grid.axes[-1], parts.values()):
        below.set_xlabel("shots per class")
        handles = _legend_of_kind(method_order(part.method), references)
        drawn = below.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.36), borderaxespad=0)
        for text in drawn.get_texts():
            text.set(**NAME)
    grid.figure.suptitle(band_note(tuned), fontsize=7)
    return grid.figure


@in_style
def accuracy_against_queries(
    curves: pd.DataFrame, shots: int, methods: list[str] | None = None, grain: str = "class_prompts"
) -> Figure:
    """Test accuracy during the fit against queries, a panel per data set, with a shared axis.

    grain: a key of `GRAINS`. Lines are means over seeds, bands ± one standard deviation. A method without
    such queries during training is a dotted line at its last accuracy. Needs columns dataset,
    backbone, method, shots, seed, epoch, test_accuracy and the grain. Raises ValueError for more than six methods.
    """
    require(curves, [SCORE, grain], [*RUN, "epoch"])
    chosen = at_shots(of_lines(curves, methods), shots)
    drawn = method_order(chosen.method)
    asking = [method for method in drawn if _asks(chosen[chosen.method == method], grain)]
    grid = panels(chosen, "dataset", 1.8)
    for name, ax in grid.axes_dict.items():
        _along_queries(ax, chosen[chosen.dataset == name], grain, drawn)
    grid.set_axis_labels(GRAINS[grain], "test accuracy (%)")
    handles = [handle(method, "-" if method in asking else ":") for method in drawn]
    dotted = "" if len(asking) == len(drawn) else f"; dotted: no {GRAINS[grain]} while training"
    legend(grid.figure, handles, f"{shots_name(shots)}; {band_note(chosen)}{dotted}")
    return grid.figure


@in_style
def training_curves(curves: pd.DataFrame, dataset: str, shots: int | None = None, methods: list[str] | None = None) -> Figure:
    """One data set's fits against steps: loss, queries, validation and test accuracy; the accuracies share their axis.

    Lines are means over seeds, bands ± one standard deviation; an accuracy that the
    table lacks gets no panel. `shots` may be omitted if the table holds only
    one number. Needs columns dataset, backbone, method, shots, seed, epoch,
    step, train_loss, class_prompts. Raises ValueError for more than six methods.
    """
    require(curves, ["step", "train_loss", "class_prompts"], [*RUN, "epoch"])
    chosen = curves[curves.dataset == dataset]
    if chosen.empty:
        raise ValueError(f"no curve of {dataset!r}; the table has {', '.join(dataset_order(curves))}")
    chosen = of_lines(chosen, methods)
    if shots is None and len(set(chosen.shots)) > 1:
        raise ValueError(f"the table has shots {', '.join(map(str, sorted(set(chosen.shots))))}: choose one")
    chosen = chosen if shots is None else at_shots(chosen, shots)
    shown = [column for column in CURVES if column in chosen and chosen[column].notna().any()]
    figure = Figure(figsize=(PAGE, 3.6))
    axes = list(figure.subplots(2, 2, sharex=True).flat)
    for ax, column in zip(axes, shown):
        table = chosen.dropna(subset=[column])
        lines(ax, table[table[column] > 0] if column == "class_prompts" else table, "step", column, dense=True)
        ax.set_ylabel(CURVES[column])
    axes[1].set_yscale("log")
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    for ax in axes[2:4]:
        ax.set_xlabel("step")
    axes[3].sharey(axes[2])
    axes[3].autoscale()
    letters(axes[: len(shown)])
    title = f"{short_name(dataset)}, {chosen.shots.iloc[0]} shots; {band_note(chosen)}"
    legend(figure, [handle(method) for method in method_order(chosen.method)], title)
    return figure


def _published(ax, table: pd.DataFrame) -> None:
    """Draw the published numbers on one data set."""
    for method, rows in table.sort_values("shots").groupby("method"):
        if method in UNTUNED:
            ax.axhline(rows.accuracy.iloc[0], color=look(method)[0], linestyle=":", zorder=1)
        else:
            ax.plot(rows.shots, rows.accuracy, color=look(method)[0], **PUBLISHED)


def _legend_of_kind(methods: list[str], references: pd.DataFrame) -> list[Line2D]:
    """Handles of one column: its methods, and their published numbers."""
    theirs = references[references.method.isin(methods)]
    handles = [handle(method, DASHES.get(method, "-")) for method in methods]
    if len(theirs):
        handles.append(Line2D([], [], linestyle="none", marker="", label=f"CLIP {theirs.backbone.iloc[0]}, published:"))
    for method, name in dict(zip(theirs.method, theirs.name)).items():
        mark = {"linestyle": ":", "marker": ""} if method in UNTUNED else PUBLISHED
        handles.append(Line2D([], [], color=look(method)[0], label=name, **mark))
    return handles


def _shots_axis(ax, table: pd.DataFrame) -> None:
    """A logarithmic axis with a tick at each number of shots."""
    ax.set_xscale("log", base=2)
    tick_values(ax.xaxis, table.shots)


def _along_queries(ax, table: pd.DataFrame, grain: str, drawn: list[str]) -> None:
    """Accuracy of these methods on one data set against one grain, on a logarithmic axis."""
    asking = [method for method in drawn if _asks(table[table.method == method], grain)]
    moved = table[table.method.isin(asking)]
    if asking:  # the number of queries by an epoch may differ a little between seeds
        asked = moved.groupby(["method", "epoch"])[grain].transform("mean")
        lines(ax, moved.assign(**{grain: asked}), grain, SCORE, dense=True)
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_xticks([])
    for method, rows in table[~table.method.isin(asking)].groupby("method"):
        (colour, marker), last = look(method), rows[rows.epoch == rows.epoch.max()][SCORE].mean()
        ax.axhline(last, color=colour, linestyle=":", zorder=1)
        place = 0.04 + 0.08 * (drawn.index(method) % 3)
        ax.plot(place, last, color=colour, marker=marker, mec="white", mew=0.4, transform=ax.get_yaxis_transform())


def _asks(table: pd.DataFrame, grain: str) -> bool:
    """Whether a method of the table makes queries of this grain during training."""
    return (table.groupby(["dataset", "method", "seed"])[grain].nunique() > 1).any()
