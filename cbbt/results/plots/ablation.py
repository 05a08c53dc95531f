"""Ablations, one factor at a time around the defaults: a tidy table and its figure.

`runs` is the table of runs of a grid with variants (configs/ablation.yaml). The
default is read from it: for each factor the value that most runs have. As in
`cbbt.results.plots.accuracy`, nothing here depends on a model or a data set.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from cbbt.catalogue import label
from cbbt.results.formatting import shots_name
from cbbt.results.plots.parts import NAME, category_axis, intervals, legend, letters, look, mark, short_name
from cbbt.results.plots.style import COLUMN, MARKERS, in_style
from cbbt.results.statistics import difference_table, differences
from cbbt.results.tables import RUN, SCORE, dataset_order, require

FACTORS = {"q": "q", "context_length": "M", "epsilon": "ε", "adapter_ratio": "r"}  # column of the table of runs → its symbol
KINDS = {"cbbt": "residual", "cbbt_tip": "cache", "cbbt_prompt": "none"}  # method → its adapter
TEXTS = {False: "before", True: "fresh"}  # `fresh_text` → the text that the adapter is trained against
NAMES = FACTORS | {"adapter": "adapter", "text": "text"}  # of rows


def by_factor(runs: pd.DataFrame, epsilon: float) -> pd.DataFrame:
    """A row per factor, value, data set, method and seed: runs that differ from the default only in that factor.

    `epsilon` is the default step, which the table of runs leaves empty. Columns:
    factor (a key of `NAMES`), value (a number, or the kind of
    adapter or of text), default (whether it is the default), and those of a run with its
    accuracy. A method's factors are those with two or more values. Raises
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
    """The effect of each value against the default, in points, over data sets.

    `table`: of `by_factor`. Rows: (method, factor, value) without the defaults;
    columns as in `cbbt.results.statistics.difference_table`, over data sets. All kinds
    of adapter are compared with the residual one, and listed under "cbbt".
    """
    rows = {key: difference_table(pair, "varied", "default", pair.shots.iloc[0]).iloc[-1] for key, pair in _pairs(table).items()}
    return pd.DataFrame(rows).T.rename_axis(["method", "factor", "value"])


def _pairs(table: pd.DataFrame) -> dict[tuple, pd.DataFrame]:
    """(method, factor, value) → the runs with that value and those with the default, as methods "varied" and "default"."""
    pairs = {}
    for factor, part in table.groupby("factor", sort=False):
        part = part.assign(family="cbbt" if factor == "adapter" else part.method)
        for family, group in part.groupby("family", sort=False):
            for value, varied in group[~group.default].groupby("value"):
                default = group[group.default].assign(method="default")
                pairs[family, factor, value] = pd.concat([default, varied.assign(method="varied")])
    return pairs


@in_style
def ablations(table: pd.DataFrame) -> Figure:
    """The effect of each value against the default, in points of test accuracy: a panel per method, a row per value.

    `table`: of `by_factor`. Symbols and bars: the mean over seeds on each data set and its 95 % t interval, of differences
    on the same seed. The axis is shared.
    """
    defaults = table[table.default].groupby("factor").value.first()
    shots, datasets = table.shots.iloc[0], dataset_order(table)
    parts = {
        (method, f"{NAMES[factor]} {_short(defaults[factor])} → {_short(value)}"): differences(pair, "varied", "default", shots)
        for (method, factor, value), pair in _pairs(table).items()
    }
    changed = pd.concat(parts, names=["method", "row"]).reset_index(level=[0, 1])
    rows = {method: list(dict.fromkeys(part.row)) for method, part in changed.groupby("method", sort=False)}
    figure = Figure(figsize=(COLUMN, 1.2 + 0.19 * sum(map(len, rows.values())) + 0.2 * len(rows)))
    axes = figure.subplots(len(rows), 1, squeeze=False, sharex=True, height_ratios=[len(names) for names in rows.values()])[:, 0]
    letters(axes)
    shapes = dict(zip(datasets, MARKERS))
    for ax, (method, names) in zip(axes, rows.items()):
        ax.axvline(0, color="black", linewidth=0.8, linestyle="--")
        part = changed[changed.method == method]
        intervals(
            ax, part, "difference", "row", names, "dataset", dict.fromkeys(datasets, look(method)[0]), list(shapes.values())
        )
        category_axis(ax, names)
        ax.set_title(label(method), **NAME)
    axes[-1].xaxis.set_major_locator(MultipleLocator(5))
    axes[-1].set_xlabel("change (points)")
    note = f"{shots_name(shots)}; mean over seeds, 95 % t interval"
    legend(figure, [mark("0.45", shape, short_name(name)) for name, shape in shapes.items()], note)
    return figure


def _short(value) -> str:
    return value if isinstance(value, str) else f"{value:.2g}"
