"""Accuracy against shots and queries: one function a figure, a tidy table in, a figure out.

Nothing here knows a model or a data set: `runs` is `records.runs_table` (or
figures/data/runs.csv), `curves` is `records.curves_table` (figures/data/curves.csv).
Bands and error bars are sample standard deviations over seeds unless a figure says
otherwise; with one seed there is none. Every function raises ValueError for a
missing column, for mixed backbones, or for two rows of one run (see `tables.require`).
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from cbbt.catalogue import UNTUNED, method_order
from cbbt.results.plots.parts import NAME, at_shots, band_note, handle, legend, line, look, of_methods, panel_axes, short_name
from cbbt.results.plots.style import PAGE, in_style
from cbbt.results.tables import RUN, SCORE, dataset_order, require

CURVES = {  # column of the table of curves → title of its panel
    "train_loss": "training loss",
    "val_accuracy": "validation accuracy (%)",
    "test_accuracy": "test accuracy (%), never chosen on",
    "class_prompts": "class prompts encoded",
}
PUBLISHED = {"linestyle": ":", "marker": "o", "markersize": 3.2, "markerfacecolor": "white"}  # of another model
DASHES = {"zero_shot": "--", "zero_shot_bare": ":"}
GRAINS = {"loss_queries": "loss queries", "class_prompts": "class prompts encoded", "images": "images encoded"}


@in_style
def accuracy_against_shots(runs: pd.DataFrame, methods: list[str] | None = None) -> Figure:
    """Test accuracy against shots per class: a panel per data set, and one for their mean.

    Lines are means over seeds, bands ± one standard deviation, untuned methods dashed or
    dotted lines. The mean panel holds only seeds that have every data set. Needs columns
    dataset, backbone, method, shots, seed, test_accuracy.
    """
    require(runs, [SCORE])
    tuned = of_methods(runs, methods)
    untuned = {name: runs[runs.method == name].groupby("dataset")[SCORE].mean() for name in UNTUNED if name in set(runs.method)}
    datasets = dataset_order(tuned)
    wide = tuned.pivot(index=["method", "shots", "seed"], columns="dataset", values=SCORE)[datasets]
    titles = {name: short_name(name) for name in datasets}
    if len(datasets) > 1:
        wide["mean"] = wide[datasets].mean(axis=1, skipna=False)
        for values in untuned.values():
            values["mean"] = values.reindex(datasets).mean(skipna=False)
        titles["mean"] = f"mean of {len(datasets)} data sets"
    drawn = method_order(tuned.method)
    figure, axes, spare = panel_axes(len(titles), "shots per class")
    for ax, (column, title) in zip(axes, titles.items()):
        table = wide[column].dropna().reset_index()
        for method in drawn:
            line(ax, table[table.method == method], "shots", column, method)
        for method, values in untuned.items():
            if pd.notna(values.get(column)):
                ax.axhline(values[column], color=look(method)[0], linestyle=DASHES[method], zorder=1)
        _shots_axis(ax, tuned)
        ax.set_title(title, fontweight="bold" if column == "mean" else "normal", **NAME)
    handles = [handle(method, DASHES.get(method, "-")) for method in [*untuned, *drawn]]
    legend(figure, spare, handles, band_note(tuned))
    return figure


@in_style
def accuracy_by_kind(runs: pd.DataFrame, kinds: dict[str, list[str]], references: pd.DataFrame) -> Figure:
    """Test accuracy against shots per class: a row per data set, a column per kind of method, published numbers beside.

    Lines are means over seeds, bands ± one standard deviation, untuned methods dashed or dotted
    lines. Published numbers of another model are dotted, with open marks at their shots, in the colour
    of their method and in each column that has it. Panels of a row share their axis. Needs columns
    dataset, backbone, method, shots, seed, test_accuracy.

    kinds: title of a column → its methods. references: of `cbbt.results.published.references`, of one backbone or empty.
    """
    require(runs, [SCORE])
    datasets, tuned = dataset_order(runs), of_methods(runs, None)
    legends = [_legend_of_kind(method_order(of_methods(runs, methods).method), references) for methods in kinds.values()]
    entries = 0.15 * max(map(len, legends))  # inches
    figure = Figure(figsize=(PAGE, 1.75 * len(datasets) + entries + 0.4))
    *rows, below = figure.subplots(
        len(datasets) + 1, len(kinds), squeeze=False, sharey="row", height_ratios=[1.5] * len(datasets) + [entries]
    )
    for name, axes in zip(datasets, rows):
        own, theirs = runs[runs.dataset == name], references[references.dataset == name]
        axes[0].set_ylabel(f"{short_name(name)}: accuracy (%)", **NAME)
        axes[0].yaxis.set_major_locator(MaxNLocator(5))
        for ax, methods in zip(axes, kinds.values()):
            for method in method_order(methods):
                _against_shots(ax, own[own.method == method], method)
            _published(ax, theirs[theirs.method.isin(methods) & theirs.shots.isin([0, *tuned.shots])])
            _shots_axis(ax, tuned)
    for ax, title in zip(rows[0], kinds):
        ax.set_title(title, **NAME)
    for ax in rows[-1]:
        ax.set_xlabel("shots per class")
    for ax, handles in zip(below, legends):
        ax.set_axis_off()
        for text in ax.legend(handles=handles, loc="upper center", borderaxespad=0).get_texts():
            text.set(**NAME)
    figure.suptitle(band_note(tuned), fontsize=7)
    return figure


@in_style
def accuracy_against_queries(curves: pd.DataFrame, shots: int, methods: list[str] | None = None) -> Figure:
    """Test accuracy during the fit against class prompts encoded, a panel per data set.

    Lines are means over seeds, bands ± one standard deviation. A method that asks
    no prompts while it trains is a dotted line at its last accuracy. Needs columns
    dataset, backbone, method, shots, seed, epoch, test_accuracy, class_prompts.
    """
    require(curves, [SCORE, "class_prompts"], [*RUN, "epoch"])
    chosen = at_shots(of_methods(curves, methods), shots)
    datasets, drawn = dataset_order(chosen), method_order(chosen.method)
    asking = [method for method in drawn if _asks(chosen[chosen.method == method])]
    figure, axes, spare = panel_axes(len(datasets), "class prompts encoded")
    for ax, name in zip(axes, datasets):
        _along_queries(ax, chosen[chosen.dataset == name], "class_prompts", drawn)
        ax.set_title(short_name(name), **NAME)
    handles = [handle(method, "-" if method in asking else ":") for method in drawn]
    dotted = "" if len(asking) == len(drawn) else "; dotted: asks no prompts while training"
    legend(figure, spare, handles, f"{band_note(chosen)}{dotted}")
    return figure


@in_style
def anytime(curves: pd.DataFrame, shots: int, methods: list[str] | None = None) -> Figure:
    """Test accuracy during the fit against what was asked: a row per data set, a column per grain that is asked.

    Lines are means over seeds, bands ± one standard deviation; a method that asks
    nothing of a grain while it trains is a dotted line at its last accuracy there.
    Needs columns dataset, backbone, method, shots, seed, epoch, test_accuracy,
    loss_queries, class_prompts, images.
    """
    require(curves, [SCORE, *GRAINS], [*RUN, "epoch"])
    chosen = at_shots(of_methods(curves, methods), shots)
    datasets, drawn = dataset_order(chosen), method_order(chosen.method)
    grains = [grain for grain in GRAINS if _asks(chosen, grain)] or list(GRAINS)
    figure, axes, _ = panel_axes(len(grains) * len(datasets), "", columns=len(grains))
    for index, ax in enumerate(axes):
        row, column = divmod(index, len(grains))
        _along_queries(ax, chosen[chosen.dataset == datasets[row]], grains[column], drawn)
        if row == 0:
            ax.set_title(GRAINS[grains[column]])
        if column == 0:
            ax.set_ylabel(f"{short_name(datasets[row])}: accuracy (%)", **NAME)
        else:
            ax.sharey(axes[index - column])
    note = f"{band_note(chosen)}; dotted: asks nothing of this kind while training"
    legend(figure, [], [handle(method) for method in drawn], note)
    return figure


@in_style
def accuracy_against_images(runs: pd.DataFrame, methods: list[str] | None = None) -> Figure:
    """Test accuracy at the end of the fit against images encoded for it, a panel per data set.

    One point per number of shots: a fit encodes its support set once, whatever it
    does with it. Lines are means over seeds, bands ± one standard deviation. Needs
    columns dataset, backbone, method, shots, seed, images, test_accuracy.
    """
    require(runs, [SCORE, "images"])
    chosen = of_methods(runs, methods)
    datasets, drawn = dataset_order(chosen), method_order(chosen.method)
    figure, axes, spare = panel_axes(len(datasets), "images encoded")
    for ax, name in zip(axes, datasets):
        for method in drawn:
            line(ax, chosen[(chosen.dataset == name) & (chosen.method == method)], "images", SCORE, method)
        ax.set_xscale("log")
        counts = sorted(set(chosen[chosen.dataset == name].images))
        ax.set_xticks(counts, labels=[f"{count:,}" for count in counts])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_title(short_name(name), **NAME)
    legend(figure, spare, [handle(method) for method in drawn], band_note(chosen))
    return figure


@in_style
def training_curves(curves: pd.DataFrame, dataset: str, shots: int | None = None, methods: list[str] | None = None) -> Figure:
    """One data set's fits against steps: loss, validation and test accuracy, queries.

    Lines are means over seeds, bands ± one standard deviation; an accuracy the
    table does not have gets no panel. `shots` may be left out if the table holds
    one number only. Needs columns dataset, backbone, method, shots, seed, epoch,
    step, train_loss, class_prompts.
    """
    require(curves, ["step", "train_loss", "class_prompts"], [*RUN, "epoch"])
    chosen = curves[curves.dataset == dataset]
    if chosen.empty:
        raise ValueError(f"no curve of {dataset!r}; the table has {', '.join(dataset_order(curves))}")
    chosen = of_methods(chosen, methods)
    if shots is None and len(set(chosen.shots)) > 1:
        raise ValueError(f"the table has shots {', '.join(map(str, sorted(set(chosen.shots))))}: choose one")
    chosen = chosen if shots is None else at_shots(chosen, shots)
    panels = {column: title for column, title in CURVES.items() if column in chosen and chosen[column].notna().any()}
    drawn = method_order(chosen.method)
    figure = Figure(figsize=(PAGE, 4.2))
    axes = figure.subplots(2, 2, sharex=True).flat
    for ax, (column, title) in zip(axes, panels.items()):
        for method in drawn:
            table = chosen[chosen.method == method].dropna(subset=[column])
            line(ax, table[table[column] > 0] if column == "class_prompts" else table, "step", column, method, dense=True)
        ax.set_title(title)
    axes[list(panels).index("class_prompts")].set_yscale("log")
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax in axes[2:4]:
        ax.set_xlabel("step")
    title = f"{short_name(dataset)}, {chosen.shots.iloc[0]} shots: {band_note(chosen)}"
    legend(figure, [], [handle(method) for method in drawn], title)
    return figure


def _against_shots(ax, table: pd.DataFrame, method: str) -> None:
    """One method on one data set: a line over its shots, or across the panel if it draws none."""
    if method in UNTUNED and len(table):
        ax.axhline(table[SCORE].mean(), color=look(method)[0], linestyle=DASHES[method], zorder=1)
    elif len(table):
        line(ax, table, "shots", SCORE, method)


def _published(ax, table: pd.DataFrame) -> None:
    """Published numbers on one data set."""
    for method, rows in table.sort_values("shots").groupby("method"):
        if method in UNTUNED:
            ax.axhline(rows.accuracy.iloc[0], color=look(method)[0], linestyle=":", zorder=1)
        else:
            ax.plot(rows.shots, rows.accuracy, color=look(method)[0], **PUBLISHED)


def _legend_of_kind(methods: list[str], references: pd.DataFrame) -> list[Line2D]:
    """Handles of one column: its methods, and what is published of them."""
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
    counts = sorted(set(table.shots))
    ax.set_xscale("log", base=2)
    ax.set_xticks(counts, labels=[str(shots) for shots in counts])
    ax.xaxis.set_minor_locator(NullLocator())


def _along_queries(ax, table: pd.DataFrame, grain: str, drawn: list[str]) -> None:
    """Accuracy of these methods on one data set against one grain, on a logarithmic axis."""
    for method in drawn:
        rows = table[table.method == method]
        if _asks(rows, grain):
            asked = rows.groupby("epoch")[grain].transform("mean")  # seeds may have asked a little more or less by then
            line(ax, rows.assign(**{grain: asked}), grain, SCORE, method, dense=True)
        elif len(rows):
            last = rows[rows.epoch == rows.epoch.max()][SCORE].mean()
            colour, marker = look(method)
            ax.axhline(last, color=colour, linestyle=":", zorder=1)
            place = 0.04 + 0.08 * (drawn.index(method) % 3)
            ax.plot(place, last, color=colour, marker=marker, mec="white", mew=0.4, transform=ax.get_yaxis_transform())
    if _asks(table, grain):
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_xticks([])


def _asks(table: pd.DataFrame, grain: str = "class_prompts") -> bool:
    """Whether a method of the table asks questions of this grain while it trains."""
    return (table.groupby(["dataset", "method", "seed"])[grain].nunique() > 1).any()
