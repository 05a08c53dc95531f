"""One factor at a time around the defaults: a tidy table and its figure.

`runs` is the table of runs of a grid with variants (configs/ablation.yaml). The
point that is varied around is read from it: of each factor the value that most
runs have. As in `cbbt.results.plots.accuracy`, nothing here knows a model or a data set.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from cbbt.catalogue import label, method_order
from cbbt.results.plots.parts import NAME, legend, look, short_name
from cbbt.results.plots.style import PAGE, in_style
from cbbt.results.statistics import difference_table
from cbbt.results.tables import RUN, SCORE, dataset_order, require

FACTORS = {  # column of the table of runs → its axis, the axis's scale
    "q": ("directions q", "log"),
    "context_length": ("context vectors M", "log"),
    "epsilon": ("step ε", "log"),
    "adapter_ratio": ("adapter ratio r", "linear"),
}
KINDS = {"cbbt": "residual", "cbbt_tip": "cache", "cbbt_prompt": "none"}  # method → its adapter
TEXTS = {False: "before", True: "fresh"}  # `fresh_text` → the text that the adapter meets
CATEGORIES = {"adapter": ("adapter", list(KINDS.values())), "text": ("adapter meets", list(TEXTS.values()))}


def by_factor(runs: pd.DataFrame, epsilon: float) -> pd.DataFrame:
    """A row per factor, value, data set, method and seed: runs that differ from the default in that factor alone.

    `epsilon` is the default step, which the table of runs leaves empty. Columns:
    factor (a key of `FACTORS` or `CATEGORIES`), value (a number, or a name of a
    category), default (whether it is the default), and those of a run with its
    accuracy. A method has the factors of which it has two values or more. Raises
    ValueError for a table that lacks a column or has two runs of one setting.
    """
    require(runs, [SCORE, *FACTORS, "fresh_text"], [*RUN, *FACTORS, "fresh_text"])
    runs = runs.assign(epsilon=runs.epsilon.fillna(epsilon).astype(float))
    point = pd.Series({factor: runs[factor].mode()[0] for factor in FACTORS}, dtype=object)
    at_point = {factor: (runs[factor] == point[factor]) for factor in FACTORS}
    fresh = runs.fresh_text.astype(bool)
    columns, parts = [*RUN, SCORE], []
    for factor in FACTORS:
        others = pd.concat([at_point[name] for name in FACTORS if name != factor], axis=1).all(axis=1) & ~fresh
        varied = runs[others].groupby("method")[factor].transform("nunique") > 1
        chosen = runs[others][varied]
        parts.append(
            chosen[columns].assign(factor=factor, value=chosen[factor].astype(object), default=at_point[factor][chosen.index])
        )
    central = pd.concat(at_point, axis=1).all(axis=1)
    kinds = runs[central & ~fresh & runs.method.isin(KINDS)]
    parts.append(kinds[columns].assign(factor="adapter", value=kinds.method.map(KINDS), default=kinds.method == "cbbt"))
    texts = runs[central & runs.method.isin(runs.method[fresh])]
    parts.append(texts[columns].assign(factor="text", value=fresh[texts.index].map(TEXTS), default=~fresh[texts.index]))
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def changes(table: pd.DataFrame) -> pd.DataFrame:
    """What each value changes against the default, in points, over data sets.

    `table`: of `by_factor`. Rows: (method, factor, value) but for the defaults;
    columns as in `cbbt.results.statistics.difference_table`, over data sets. Kinds of
    adapter are all compared with the residual one, and stand under "cbbt".
    """
    rows = {}
    for factor, part in table.groupby("factor", sort=False):
        part = part.assign(family="cbbt" if factor == "adapter" else part.method)
        for family, group in part.groupby("family", sort=False):
            for value, varied in group[~group.default].groupby("value"):
                pair = pd.concat([group[group.default].assign(method="default"), varied.assign(method="varied")])
                rows[family, factor, value] = difference_table(pair, "varied", "default", pair.shots.iloc[0]).iloc[-1]
    return pd.DataFrame(rows).T.rename_axis(["method", "factor", "value"])


@in_style
def ablations(table: pd.DataFrame) -> Figure:
    """Test accuracy against each factor: a column per factor, a row per data set and one for their mean.

    `table`: of `by_factor`. Lines are means over seeds, bands and bars ± one sample
    standard deviation; a dashed line marks the default. The axes of a row are shared.
    """
    factors = [*dict.fromkeys(table.factor)]
    datasets = dataset_order(table)
    keys = ["factor", "method", "value", "seed"]
    wide = table.pivot(index=keys, columns="dataset", values=SCORE)[datasets]
    titles = {name: short_name(name) for name in datasets}
    if len(datasets) > 1:
        wide["mean"] = wide[datasets].mean(axis=1, skipna=False)
        titles["mean"] = "mean"
    figure = Figure(figsize=(PAGE, 0.75 + 1.05 * len(titles)))
    axes = figure.subplots(len(titles), len(factors), squeeze=False, sharex="col", sharey="row")
    for row, (name, title) in zip(axes, titles.items()):
        row[0].set_ylabel(title, fontweight="bold" if name == "mean" else "normal", **NAME)
        row[0].yaxis.set_major_locator(MaxNLocator(4))
        for ax, factor in zip(row, factors):
            _panel(ax, wide[name].dropna().loc[factor].rename("accuracy").reset_index(), factor)
    for ax, factor in zip(axes[-1], factors):
        ax.set_xlabel((FACTORS | CATEGORIES)[factor][0])
        default = table[(table.factor == factor) & table.default].value.iloc[0]
        for each in axes[:, factors.index(factor)] if factor in FACTORS else ():
            each.axvline(default, color="0.5", linestyle="--", linewidth=0.8, zorder=1)
    handles = [
        Line2D([], [], color=look(name)[0], marker=look(name)[1], label=label(name)) for name in method_order(table.method)
    ]
    handles.append(Line2D([], [], color="0.5", linestyle="--", linewidth=0.8, marker="", label="default"))
    seeds = table.seed.nunique()
    note = f"test accuracy (%), {table.shots.iloc[0]} shots; " + (f"mean ± sd over {seeds} seeds" if seeds > 1 else "one seed")
    legend(figure, [], handles, note)
    return figure


def _panel(ax, scores: pd.DataFrame, factor: str) -> None:
    """One factor on one data set; columns of `scores`: method, value, seed, accuracy."""
    if factor in CATEGORIES:
        names = [name for name in CATEGORIES[factor][1] if name in set(scores.value)]
        for (method, value), group in scores.groupby(["method", "value"]):
            colour, marker = look(method)
            ax.errorbar(names.index(value), group.accuracy.mean(), group.accuracy.std(), color=colour, marker=marker, capsize=2)
        ax.set_xticks(range(len(names)), labels=names, fontsize=6)
        ax.set_xlim(-0.5, len(names) - 0.5)
        return
    for method in method_order(scores.method):
        (colour, marker), group = look(method), scores[scores.method == method]
        over_seeds = group.groupby("value").accuracy.agg(["mean", "std"])
        x = over_seeds.index.astype(float)
        ax.plot(x, over_seeds["mean"], color=colour, marker=marker, mec="white", mew=0.4)
        low, high = over_seeds["mean"] - over_seeds["std"], over_seeds["mean"] + over_seeds["std"]
        ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    ax.set_xscale(FACTORS[factor][1])
    if factor in ("q", "context_length"):  # counts; a step is read in powers of ten
        values = sorted(set(scores.value))
        ax.set_xticks(values, labels=[str(value) for value in values])
    ax.xaxis.set_minor_locator(NullLocator())
