"""The paper's figures: one function each, a tidy table in, a matplotlib figure out.

Nothing here knows a model or a data set: `runs` is `cbbt.runs_table` (or
figures/data/runs.csv), `curves` is `cbbt.curves_table` (figures/data/curves.csv).
A method has the same colour and marker in every figure. Bands and error bars are
sample standard deviations over seeds unless a figure says otherwise; with one
seed there is none. Every function raises ValueError for a missing column, for
mixed backbones, or for two rows of one run (see `cbbt.tables.require`).
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from cbbt.figure_style import COLOURS, COLUMN, MARKERS, PAGE, STYLE
from cbbt.tables import RUN, SCORE, dataset_order, label, method_order, require

LOOK = {  # method → colour, marker
    "cbbt": ("#D55E00", "o"),
    "adapter": ("#0072B2", "s"),
    "cbbt_prompt": ("#E69F00", "^"),
    "coop": ("#000000", "X"),
    "tip_adapter": ("#56B4E9", "v"),
    "tip_adapter_f": ("#009E73", "P"),
    "cbbt_tip": ("#CC79A7", "D"),
    "cbbt_plus": ("#7A1F00", "*"),
    "cbbt_plus_prompt": ("#7A5C00", "<"),
    "bbt": ("#117733", "8"),
    "bpt_vlm": ("#44AA99", "H"),
    "craft": ("#AA4499", (4, 1, 45)),
    "zip": ("#999933", "d"),
    "blackvip": ("#4D4D00", "p"),
    "zero_shot": ("#8C8C8C", ""),
    "lfa": ("#332288", ">"),
    "word_search": ("#882255", "h"),
}
VARIANTS = {  # of methods, as notebook A3 calls them
    "CBBT+ (1/40)": ("#CC79A7", "D"),
    "CBBT+, prompt only (1/40)": ("#56B4E9", "v"),
}
CURVES = {  # column of the table of curves → title of its panel
    "train_loss": "training loss",
    "val_accuracy": "validation accuracy (%)",
    "test_accuracy": "test accuracy (%), never chosen on",
    "class_prompts": "class prompts encoded",
}
GRAINS = {"loss_queries": "loss queries", "class_prompts": "class prompts encoded", "images": "images encoded"}


@mpl.rc_context(STYLE)
def accuracy_against_shots(runs: pd.DataFrame, methods: list[str] | None = None) -> Figure:
    """Test accuracy against shots per class: a panel per data set, and one for their mean.

    Lines are means over seeds, bands ± one standard deviation, zero-shot a dashed
    line. The mean panel holds only seeds that have every data set. Needs columns
    dataset, backbone, method, shots, seed, test_accuracy.
    """
    require(runs, [SCORE])
    tuned = of_methods(runs, methods)
    zero_shot = runs[runs.method == "zero_shot"].groupby("dataset")[SCORE].mean()
    datasets = dataset_order(tuned)
    wide = tuned.pivot(index=["method", "shots", "seed"], columns="dataset", values=SCORE)[datasets]
    titles = {name: short_name(name) for name in datasets}
    if len(datasets) > 1:
        wide["mean"] = wide[datasets].mean(axis=1, skipna=False)
        zero_shot["mean"] = zero_shot.reindex(datasets).mean(skipna=False)
        titles["mean"] = f"mean of {len(datasets)} data sets"
    drawn = method_order(tuned.method)
    figure, axes, spare = panel_axes(len(titles), "shots per class")
    for ax, (column, title) in zip(axes, titles.items()):
        table = wide[column].dropna().reset_index()
        for method in drawn:
            _line(ax, table[table.method == method], "shots", column, method)
        if pd.notna(zero_shot.get(column)):
            ax.axhline(zero_shot[column], color=LOOK["zero_shot"][0], linestyle="--", zorder=1)
        ax.set_xscale("log", base=2)
        ax.set_xticks(sorted(set(tuned.shots)), labels=[str(shots) for shots in sorted(set(tuned.shots))])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_title(title, fontweight="bold" if column == "mean" else "normal")
    handles = [_handle(method) for method in drawn]
    if len(zero_shot):
        handles.insert(0, Line2D([], [], color=LOOK["zero_shot"][0], linestyle="--", label=label("zero_shot")))
    _legend(figure, spare, handles, _band_note(tuned))
    return figure


@mpl.rc_context(STYLE)
def accuracy_against_queries(curves: pd.DataFrame, shots: int, methods: list[str] | None = None) -> Figure:
    """Test accuracy during the fit against class prompts encoded, a panel per data set.

    Lines are means over seeds, bands ± one standard deviation. A method that asks
    no prompts while it trains is a dotted line at its last accuracy. Needs columns
    dataset, backbone, method, shots, seed, epoch, test_accuracy, class_prompts.
    """
    require(curves, [SCORE, "class_prompts"], [*RUN, "epoch"])
    chosen = _at_shots(of_methods(curves, methods), shots)
    datasets, drawn = dataset_order(chosen), method_order(chosen.method)
    asking = [method for method in drawn if _asks(chosen[chosen.method == method])]
    figure, axes, spare = panel_axes(len(datasets), "class prompts encoded")
    for ax, name in zip(axes, datasets):
        _along_queries(ax, chosen[chosen.dataset == name], "class_prompts", drawn)
        ax.set_title(short_name(name))
    handles = [_handle(method, "-" if method in asking else ":") for method in drawn]
    dotted = "" if len(asking) == len(drawn) else "; dotted: asks no prompts while training"
    _legend(figure, spare, handles, f"{_band_note(chosen)}{dotted}")
    return figure


@mpl.rc_context(STYLE)
def anytime(curves: pd.DataFrame, shots: int, methods: list[str] | None = None) -> Figure:
    """Test accuracy during the fit against what was asked: a row per data set, a column per grain.

    Lines are means over seeds, bands ± one standard deviation; a method that asks
    nothing of a grain while it trains is a dotted line at its last accuracy there.
    Needs columns dataset, backbone, method, shots, seed, epoch, test_accuracy,
    loss_queries, class_prompts, images.
    """
    require(curves, [SCORE, *GRAINS], [*RUN, "epoch"])
    chosen = _at_shots(of_methods(curves, methods), shots)
    datasets, drawn = dataset_order(chosen), method_order(chosen.method)
    figure, axes, _ = panel_axes(3 * len(datasets), "", columns=3)
    for index, ax in enumerate(axes):
        name, (grain, title) = datasets[index // 3], list(GRAINS.items())[index % 3]
        _along_queries(ax, chosen[chosen.dataset == name], grain, drawn)
        if index < 3:
            ax.set_title(title)
        if index % 3 == 0:
            ax.set_ylabel(f"{short_name(name)}: accuracy (%)")
        else:
            ax.sharey(axes[index - index % 3])
    note = f"{_band_note(chosen)}; dotted: asks nothing of this kind while training"
    _legend(figure, [], [_handle(method) for method in drawn], note)
    return figure


@mpl.rc_context(STYLE)
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
            _line(ax, chosen[(chosen.dataset == name) & (chosen.method == method)], "images", SCORE, method)
        ax.set_xscale("log")
        counts = sorted(set(chosen[chosen.dataset == name].images))
        ax.set_xticks(counts, labels=[f"{count:,}" for count in counts])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_title(short_name(name))
    _legend(figure, spare, [_handle(method) for method in drawn], _band_note(chosen))
    return figure


@mpl.rc_context(STYLE)
def training_curves(
    curves: pd.DataFrame, dataset: str, shots: int | None = None, methods: list[str] | None = None
) -> Figure:
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
    chosen = chosen if shots is None else _at_shots(chosen, shots)
    panels = {column: title for column, title in CURVES.items() if column in chosen and chosen[column].notna().any()}
    drawn = method_order(chosen.method)
    figure = Figure(figsize=(PAGE, 4.2))
    axes = figure.subplots(2, 2, sharex=True).flat
    for ax, (column, title) in zip(axes, panels.items()):
        for method in drawn:
            table = chosen[chosen.method == method].dropna(subset=[column])
            _line(ax, table[table[column] > 0] if column == "class_prompts" else table, "step", column, method, dense=True)
        ax.set_title(title)
    axes[list(panels).index("class_prompts")].set_yscale("log")
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax in axes[2:4]:
        ax.set_xlabel("step")
    title = f"{short_name(dataset)}, {chosen.shots.iloc[0]} shots: {_band_note(chosen)}"
    _legend(figure, [], [_handle(method) for method in drawn], title)
    return figure


# ---- parts -------------------------------------------------------------------


def look(method: str) -> tuple[str, str]:
    """Colour and marker; a method of your own gets one by its name."""
    number = zlib.crc32(method.encode())
    return (LOOK | VARIANTS).get(method, (COLOURS[number % len(COLOURS)], MARKERS[number // len(COLOURS) % len(MARKERS)]))


def short_name(dataset: str) -> str:
    return Path(dataset).name


def of_methods(table: pd.DataFrame, methods: list[str] | None) -> pd.DataFrame:
    """The rows of these methods, or of all but zero-shot."""
    present = method_order(table.method)
    wanted = [method for method in present if method != "zero_shot"] if methods is None else list(methods)
    for method in wanted:
        if method not in present:
            raise ValueError(f"no row of method {method!r}; the table has {', '.join(present)}")
    if not wanted:
        raise ValueError("the table has zero-shot rows alone: there is no tuned method to draw")
    return table[table.method.isin(wanted)]


def _at_shots(table: pd.DataFrame, shots: int) -> pd.DataFrame:
    if shots not in set(table.shots):
        raise ValueError(f"no row has shots={shots}; the table has {', '.join(map(str, sorted(set(table.shots))))}")
    return table[table.shots == shots]


def _along_queries(ax, table: pd.DataFrame, grain: str, drawn: list[str]) -> None:
    """Accuracy of these methods on one data set against one grain, on a logarithmic axis."""
    for method in drawn:
        rows = table[table.method == method]
        if _asks(rows, grain):
            _line(ax, rows, grain, SCORE, method, dense=True)
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


def _line(ax, table: pd.DataFrame, x: str, y: str, method: str, dense: bool = False) -> None:
    """Mean of y over seeds at each x, with a band of ± one sd.

    A dense line has a marker at every fifth of the panel, where each method starts
    at a place of its own, so that lines on top of each other are still seen.
    """
    colour, marker = look(method)
    over_seeds = table.groupby(x)[y].agg(["mean", "std"])
    marks = (0.03 * (1 + method_order({*LOOK, method}).index(method)), 0.25) if dense else None
    ax.plot(over_seeds.index, over_seeds["mean"], color=colour, marker=marker, markevery=marks, mec="white", mew=0.4)
    band = over_seeds.dropna()
    ax.fill_between(band.index, band["mean"] - band["std"], band["mean"] + band["std"], color=colour, alpha=0.15, linewidth=0)


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
            ax.set_ylabel(ylabel)
        if index + columns >= n:
            ax.set_xlabel(xlabel)
    for ax in axes[n:]:
        ax.set_axis_off()
    return figure, axes[:n], axes[n:]


def _handle(method: str, linestyle: str = "-") -> Line2D:
    colour, marker = look(method)
    return Line2D([], [], color=colour, marker=marker, linestyle=linestyle, label=label(method))


def _band_note(table: pd.DataFrame) -> str:
    seeds = table.seed.nunique()
    return f"mean ± sd over {seeds} seeds" if seeds > 1 else "one seed"


def _legend(figure: Figure, spare: list, handles: list, note: str) -> None:
    """One legend: in a panel left over, or below the panels."""
    if spare:
        spare[0].legend(handles=handles, loc="center", title=note.replace("; ", "\n"), title_fontsize=7)
    else:
        columns = 4 if figure.get_figwidth() > COLUMN else 2
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, title=note, title_fontsize=7)
