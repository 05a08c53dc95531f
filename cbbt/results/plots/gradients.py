"""Figures of the gradient analysis, drawn from its tables.

`FIGURES` maps the name of a table (its CSV file's stem) to the function that draws
it. Points are means over repeats (for norms, root mean squares); bands are ± one
standard deviation of a single repeat; thin lines are the theory, `expected_` columns:
solid if it follows from q and d, dashed if it uses the true gradient, which no user
of a black box has.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cbbt.results.plots.answers import descents, local_model_error
from cbbt.results.plots.parts import INTERVALS, category_axis, dots_and_intervals, legend, letters, mark, tick_values
from cbbt.results.plots.style import COLUMN, MARKERS, PAGE, SERIES, in_style, save_figure
from cbbt.results.tables import SCORE, read_table, write_table

FAMILIES = {  # panel → its families of directions, each with a marker, and the colour of its position
    "independent directions": ("sphere", "gaussian", "rademacher", "spsa"),
    "frames, subspaces, past gradients": ("orthogonal", "coordinate", "subspace, vocabulary", "subspace, random", "guided"),
}
THEORIES = {False: (r"theory, from $q$ and $d$", "-"), True: (r"theory, given $\nabla L$", "--")}  # informed → label and line
COSINE, NORM = r"cosine with $\nabla L$", r"$\|\hat g\|\,/\,\|\nabla L\|$"


@in_style
def cosine_by_queries(table: pd.DataFrame) -> Figure:
    """Cosine and norm ratio against q: independent directions on the left, all others on the right."""
    figure = Figure(figsize=(PAGE, 5.2))
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    markers = iter("os^DvPX<>")  # one for each family
    for column, (title, names) in zip(axes.T, FAMILIES.items()):
        column[0].set_title(title)
        for index, family in enumerate(names):
            rows = table[table.family == family]
            informed, history = rows.informed.iloc[0], (rows.queries - rows.q - 1).iloc[0]
            name = f"{family}, +{history} queries" if history else family
            marker = next(markers)
            for axis, quantity in zip(column, ("cosine", "norm_ratio")):
                _theory(axis, rows, "q", quantity, SERIES[index], informed)
                _points(axis, rows, "q", quantity, name, SERIES[index], marker)
        theories = [_theory_key(informed) for informed in sorted(set(table.informed[table.family.isin(names)]))]
        keys = [*column[1].get_legend_handles_labels()[0], *theories]
        column[1].legend(handles=keys, loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=2)
        column[1].set(xlabel="directions $q$", yscale="log")
        _powers_of_two(column[1], table.q)
    axes[0, 0].set(ylabel=COSINE, ylim=(0, 1.02))
    axes[1, 0].set(ylabel=NORM, ylim=(0.3, 20))
    letters(axes.flat)
    return figure


@in_style
def cosine_by_epsilon(table: pd.DataFrame) -> Figure:
    """Cosine and norm ratio against ε for forward and two-sided differences."""
    figure = Figure(figsize=(PAGE, 2.5))
    axes = figure.subplots(1, 2, sharex=True)
    for axis, quantity in zip(axes, ("cosine", "norm_ratio")):
        for index, (differences, rows) in enumerate(table.groupby("differences", sort=False)):
            _theory(axis, rows, "epsilon", quantity, SERIES[index], informed=True)
            _points(axis, rows, "epsilon", quantity, differences, SERIES[index], MARKERS[index])
        _paper_epsilon(axis, table.loc[table.is_default, "epsilon"].iloc[0])
        axis.set(xscale="log", xlabel=r"step $\varepsilon$")
    axes[0].set(ylabel=COSINE)
    axes[1].set(ylabel=NORM, yscale="log", ylim=(0.5, 50))
    letters(axes)
    handles = [*axes[1].get_legend_handles_labels()[0], _theory_key(informed=True)]
    axes[1].legend(handles=handles, loc="upper center", frameon=True, facecolor="white", edgecolor="white", framealpha=1)
    return figure


@in_style
def norm_by_dimension(table: pd.DataFrame) -> Figure:
    """Norm ratio under both factors, and the cosine, against d."""
    labels = {"dimension": "factor $d$", "released": r"factor $1/\varepsilon$, as released"}
    figure = Figure(figsize=(PAGE, 2.5))
    axes = figure.subplots(1, 2, sharex=True)
    for index, (factor, rows) in enumerate(table.groupby("factor", sort=False)):
        _theory(axes[0], rows, "dimension", "norm_ratio", SERIES[index], informed=False)
        _points(axes[0], rows, "dimension", "norm_ratio", labels[factor], SERIES[index], MARKERS[index])
    unbiased = table[table.factor == "dimension"]
    _theory(axes[1], unbiased, "dimension", "cosine", SERIES[0], informed=False)
    _points(axes[1], unbiased, "dimension", "cosine", "either factor", SERIES[0])
    for axis in axes:
        axis.axvline(1000, color="0.4", linestyle=":", linewidth=1, label="$d = 1000$")
        axis.set(xlabel="dimension $d = M D$")
        _powers_of_two(axis, table.dimension)
        axis.legend(handles=[*axis.get_legend_handles_labels()[0], _theory_key(informed=False)])
    axes[0].set(ylabel=NORM, ylim=(0, None))
    axes[1].set(ylabel=COSINE, ylim=(0, 1))
    letters(axes)
    return figure


@in_style
def cosine_by_budget(table: pd.DataFrame) -> Figure:
    """Forward against two-sided differences at equal cost, one panel per ε."""
    epsilons = sorted(table.epsilon.unique())
    figure = Figure(figsize=(PAGE, 2.2))
    axes = figure.subplots(1, len(epsilons), sharey=True, squeeze=False)
    for axis, epsilon in zip(axes[0], epsilons):
        for index, (differences, rows) in enumerate(table[table.epsilon == epsilon].groupby("differences")):
            _points(axis, rows, "budget", "cosine", differences, SERIES[index], MARKERS[index], line="-")
        axis.set(title=rf"$\varepsilon = {epsilon:.3g}$", xlabel="loss queries")
        _powers_of_two(axis, table.budget)
    axes[0, 0].set_ylabel(COSINE)
    axes[0, 0].legend()
    letters(axes[0])
    return figure


@in_style
def cosine_by_precision(table: pd.DataFrame) -> Figure:
    """Cosine against ε for services of different precision: of the whole model on the left, of a part of it on the right."""
    exact = table.precision.iloc[0]
    whole = [name for name in table.precision.unique() if name.startswith("model") or "float32" in name]
    parts = {"the whole model": whole, "a part of it": [exact, *(name for name in table.precision.unique() if name not in whole)]}
    figure = Figure(figsize=(PAGE, 3.0))
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (title, names) in zip(axes, parts.items()):
        for index, name in enumerate(names):
            _points(axis, table[table.precision == name], "epsilon", "cosine", name, SERIES[index], MARKERS[index], line="-")
        _paper_epsilon(axis, table.loc[table.is_default, "epsilon"].iloc[0])
        axis.set(xscale="log", xlabel=r"step $\varepsilon$", title=title)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=2)
    axes[0].set_ylabel(COSINE)
    letters(axes)
    return figure


@in_style
def error_by_batch(table: pd.DataFrame) -> Figure:
    """Squared error of a gradient, split into the batch's and the estimator's part."""
    parts = {"batch_error": "batch", "estimator_error": "finite differences"}
    counts = sorted(table.q.unique())
    figure = Figure(figsize=(PAGE, 2.3))
    axes = figure.subplots(1, len(counts), sharey=True, squeeze=False)
    for axis, q in zip(axes[0], counts):
        means = table[table.q == q].groupby("batch_size").mean(numeric_only=True)
        ticks, below = range(len(means)), 0.0
        for colour, (part, label) in zip(SERIES, parts.items()):
            axis.bar(ticks, means[part], bottom=below, color=colour, width=0.6, label=label)
            below = below + means[part]
        theory = means.batch_error + means.expected_estimator_error
        axis.plot(ticks, theory, color="black", marker="_", markersize=14, linestyle="", label=THEORIES[True][0])
        axis.plot(ticks, means.total_error, color="black", marker="x", linestyle="", label="total, measured")
        axis.set_xticks(ticks, means.index)
        axis.set(title=f"$q = {q}$", xlabel="images in the batch")
        axis.grid(axis="x", visible=False)
    axes[0, 0].set_ylabel(r"squared error $/\,\|\nabla L\|^2$")
    axes[0, -1].legend()
    letters(axes[0])
    return figure


@in_style
def landscape(table: pd.DataFrame) -> Figure:
    """The loss along three directions; dashed, its tangents."""
    figure = Figure(figsize=(COLUMN, 2.3))
    axis = figure.subplots()
    for colour, (direction, rows) in zip(SERIES, table.groupby("direction", sort=False)):
        axis.plot(rows.distance, rows.loss, color=colour, marker="", label=direction)
        axis.plot(rows.distance, rows.linear, color=colour, marker="", linestyle="--", linewidth=0.8)
    margin = 0.1 * (table.loss.max() - table.loss.min())
    axis.set_ylim(table.loss.min() - margin, table.loss.max() + margin)
    axis.set(xlabel="distance along the direction", ylabel="loss")
    axis.legend()
    return figure


@in_style
def training(table: pd.DataFrame) -> Figure:
    """Accuracy after the last step, on validation, and its difference from "sphere" on the same seed: a row per estimator.

    Rows are sorted by their mean; diamonds and bars are means and 95 % t intervals over seeds.
    """
    last = table[table.step == table.step.max()].pivot(index="seed", columns="estimator", values="validation_accuracy")
    order = list(last.mean().sort_values(ascending=False, kind="stable").index)
    colours = {name: SERIES["whole support" in name] for name in order}
    shown = {"validation accuracy (%)": last, 'difference from "sphere" (points)': last.sub(last["sphere"], axis=0)}
    figure = Figure(figsize=(PAGE, 0.8 + 0.19 * len(order)))
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (title, wide) in zip(axes, shown.items()):
        values = wide.melt(value_name=SCORE)
        if title.startswith("difference"):
            values = values[values.estimator != "sphere"]
            axis.axvline(0, color="black", linewidth=0.8, linestyle="--")
        dots_and_intervals(axis, values, SCORE, "estimator", order, colours)
        axis.set_xlabel(title)
    category_axis(axes[0], order)
    axes[1].grid(axis="y", visible=False)
    letters(axes)
    handles = [mark(colour, "D", name) for colour, name in zip(SERIES, ("scored on batches", "scored on the whole support"))]
    legend(figure, handles, f"dots: seeds; {INTERVALS}")
    return figure


def _theory(axis, rows, x, quantity, colour, informed: bool) -> None:
    """The expected line, mean over repeats."""
    theory = rows.groupby(x)[f"expected_{quantity}"].mean()
    axis.plot(theory.index, theory, color=colour, marker="", linewidth=1, linestyle=THEORIES[informed][1])


def _theory_key(informed: bool) -> Line2D:
    """The legend entry for lines of theory."""
    label, line = THEORIES[informed]
    return Line2D([], [], color="0.3", marker="", linewidth=1, linestyle=line, label=label)


def _points(axis, rows, x, quantity, label, colour, marker="o", line="none") -> None:
    """Means (root mean squares of norms) with a band of one standard deviation."""
    centre = "mean" if quantity == "cosine" else _root_mean_square
    look = {
        "color": colour,
        "marker": marker,
        "linestyle": line,
        "label": label,
        "legend": False,
        "err_kws": {"alpha": 0.13, "linewidth": 0},
    }
    sns.lineplot(rows, x=x, y=quantity, estimator=centre, errorbar=lambda values: _spread(values, centre), ax=axis, **look)
    axis.set(xlabel="", ylabel="")


def _root_mean_square(values) -> float:
    return (values**2).mean() ** 0.5


def _spread(values, centre) -> tuple[float, float]:
    """One standard deviation to either side of the centre; a norm stays above zero because its axis is logarithmic."""
    middle = values.mean() if centre == "mean" else centre(values)
    low = middle - values.std()
    return (low if centre == "mean" else max(low, 1e-3)), middle + values.std()


def _paper_epsilon(axis, epsilon) -> None:
    axis.axvline(epsilon, color="0.4", linestyle=":", linewidth=1, label="rule of the paper")


def _powers_of_two(axis, values) -> None:
    """A logarithmic x axis with a tick at every value."""
    axis.set_xscale("log")
    tick_values(axis.xaxis, values)


FIGURES: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "gradient_cosine": cosine_by_queries,
    "gradient_epsilon": cosine_by_epsilon,
    "gradient_dimension": norm_by_dimension,
    "gradient_budget": cosine_by_budget,
    "gradient_precision": cosine_by_precision,
    "gradient_batch": error_by_batch,
    "gradient_landscape": landscape,
    "gradient_answers": local_model_error,
    "gradient_answers_descent": descents,
    "gradient_training": training,
}


def draw_from_file(name: str, table: pd.DataFrame, folder: str | Path, pictures: str | Path) -> Figure:
    """Write the table as `folder/name.csv`, draw its figure of `FIGURES` from that file, and save it in `pictures`.

    What the file keeps, six digits, is what is drawn: the figure is the same when it is drawn again from the file.
    """
    path = Path(folder).expanduser() / f"{name}.csv"
    write_table(table, path, digits=6)
    figure = FIGURES[name](read_table(path))
    save_figure(figure, name, pictures)
    return figure
