"""Tables of accuracies: selected, compared, and written as Markdown and LaTeX.

Everything starts from the table of runs (`cbbt.runs_table`, figures/data/runs.csv).
`scores` turns it into one column per method, so that the rows pair what the
methods reached on the same data set with the same shots; the rest is pandas and
scipy on that.
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
from scipy import stats

from cbbt.methods import METHODS

SCORE = "test_accuracy"  # percent, the last step's model
RUN = ["dataset", "backbone", "method", "shots", "seed"]


def require(table: pd.DataFrame, columns: list[str], keys: list[str] = RUN) -> None:
    """Refuse a table that cannot be drawn.

    Raises ValueError if a column is missing (names it and those present), if the
    table is empty, mixes backbones, or has two rows of the same `keys`.
    """
    missing = [column for column in [*keys, *columns] if column not in table]
    if missing:
        raise ValueError(f"the table lacks {', '.join(missing)}; its columns are {', '.join(table)}")
    if table.empty:
        raise ValueError("the table has no rows")
    backbones = sorted(set(table.backbone))
    if len(backbones) > 1:
        raise ValueError(f"the table mixes backbones {', '.join(backbones)}: keep the rows of one")
    twice = table[table.duplicated(keys)]
    if len(twice):
        first = ", ".join(f"{key}={twice.iloc[0][key]}" for key in keys)
        raise ValueError(f"the table has two rows of {first}: keep the runs of one setting")


def keep(table: pd.DataFrame, backbone: str = "", dataset: str = "") -> pd.DataFrame:
    """The rows of one backbone; all rows without a name, or if the table is empty.

    Raises ValueError, naming the choices, for a backbone that the table lacks, or
    for a data set that it lacks (rows of other data sets stay).
    """
    for column, wanted in (("backbone", backbone), ("dataset", dataset)):
        if wanted and len(table) and wanted not in set(table[column]):
            raise ValueError(f"no row has {column}={wanted!r}, choose from {', '.join(dict.fromkeys(table[column]))}")
    return table[table.backbone == backbone] if backbone and len(table) else table


def label(method: str) -> str:
    """The method's name in figures and tables."""
    return METHODS[method].label if method in METHODS else method


def method_order(methods) -> list[str]:
    """These methods, each once: first those of `METHODS` in its order, then others by name."""
    known = list(METHODS)
    return sorted(set(methods), key=lambda method: (known.index(method) if method in known else len(known), method))


def dataset_order(table: pd.DataFrame) -> list[str]:
    """The table's data sets in order of appearance."""
    return list(dict.fromkeys(table.dataset))


def scores(runs: pd.DataFrame, shots: int, score: str = SCORE) -> pd.DataFrame:
    """Accuracies in percent: rows (dataset, seed), one column per method.

    Zero-shot draws no shots, so its mean per data set stands in every row. A run
    that is not in the table is NaN. Raises ValueError if no run has these shots.
    """
    require(runs, [score])
    tuned, zero_shot = runs[runs.method != "zero_shot"], runs[runs.method == "zero_shot"]
    chosen = tuned[tuned.shots == shots]
    if chosen.empty:
        available = ", ".join(str(number) for number in sorted(set(tuned.shots)))
        raise ValueError(f"no run has shots={shots}; the table has {available or 'zero-shot runs alone'}")
    wide = chosen.pivot(index=["dataset", "seed"], columns="method", values=score)
    if len(zero_shot):
        wide["zero_shot"] = wide.index.get_level_values("dataset").map(zero_shot.groupby("dataset")[score].mean())
    present = [name for name in dataset_order(runs) if name in wide.index.get_level_values("dataset")]
    return wide[method_order(wide.columns)].reindex(present, level="dataset")


def mean_over_datasets(wide: pd.DataFrame) -> pd.DataFrame:
    """Rows: seeds; one column per method: its mean over all data sets, NaN where one is missing."""
    return pd.DataFrame({method: wide[method].unstack("dataset").mean(axis=1, skipna=False) for method in wide})


def differences(runs: pd.DataFrame, method: str, baseline: str, shots: int, score: str = SCORE) -> pd.DataFrame:
    """`method` minus `baseline` in points, a row per data set and seed that has both.

    Columns: dataset, seed, difference. Raises ValueError for a method that the
    table lacks (names those present) or if no data set and seed has both.
    """
    wide = scores(runs, shots, score)
    for name in (method, baseline):
        if name not in wide:
            raise ValueError(f"no run of method {name!r} with shots={shots}; the table has {', '.join(wide)}")
    paired = (wide[method] - wide[baseline]).dropna().rename("difference").reset_index()
    if paired.empty:
        raise ValueError(f"no data set and seed has both {method!r} and {baseline!r} with shots={shots}")
    return paired


def difference_table(runs: pd.DataFrame, method: str, baseline: str, shots: int, score: str = SCORE) -> pd.DataFrame:
    """Mean differences with 95 % t intervals: a row per data set, then "all pairs".

    Columns: n (pairs), mean, low, high (points), p (two-sided paired t-test). With
    one pair there is no interval: NaN. "all pairs" takes every data set and seed
    as one independent pair, though seeds of one data set share its test split.
    """
    paired = differences(runs, method, baseline, shots, score)
    groups = dict(iter(paired.groupby("dataset", sort=False).difference)) | {"all pairs": paired.difference}
    return pd.DataFrame({name: _t_test(values) for name, values in groups.items()}).T.astype({"n": int})


def peer_table(runs: pd.DataFrame, method: str, shots: int) -> pd.DataFrame:
    """`method` minus every other tuned method that shares a data set and seed with it, over all pairs.

    Rows: the other methods; columns as in `difference_table`, and "p, Holm": p corrected
    for the number of methods compared (Holm 1979). Raises ValueError for a method that the table lacks, or if no
    other shares anything with it.
    """
    wide = scores(runs, shots).drop(columns="zero_shot", errors="ignore")
    if method not in wide:
        raise ValueError(f"no run of method {method!r} with shots={shots}; the table has {', '.join(wide)}")
    peers = [name for name in wide if name != method and (wide[method] - wide[name]).notna().any()]
    if not peers:
        raise ValueError(f"no other method shares a data set and a seed with {method!r} for shots={shots}")
    table = pd.DataFrame({peer: difference_table(runs, method, peer, shots).loc["all pairs"] for peer in peers}).T
    ranked = table.p.sort_values()
    steps = ranked * [*range(len(ranked), 0, -1)]  # the smallest p times the number of tests, the next times one less, …
    table["p, Holm"] = steps.cummax().clip(upper=1.0)
    return table.astype({"n": int})


def difference_sentence(runs: pd.DataFrame, method: str, baseline: str, shots: int, score: str = SCORE) -> str:
    """`method` minus `baseline` over all pairs, and whether that is a finding, in words."""
    line = difference_table(runs, method, baseline, shots, score).loc["all pairs"]
    text = f"{label(method)} − {label(baseline)}: {_signed(line['mean'])} points"
    if pd.isna(line.p):
        return f"{text} (pairs of data set and seed: {line.n:.0f}, no test)."
    p = "p < 0.001" if line.p < 0.001 else f"p = {line.p:.3f}"
    verdict = "beyond chance" if line.p < 0.05 else "within chance"
    return (
        f"{text}, {verdict} at the 5 % level (95 % t interval {_signed(line.low)} to {_signed(line.high)}, "
        f"paired t-test over {line.n:.0f} pairs of data set and seed, {p})."
    )


def mean_ranks(runs: pd.DataFrame, shots: int, methods: list[str] | None = None) -> tuple[pd.Series, float]:
    """(mean rank of each method over data sets, best first; critical difference of Nemenyi's test at 5 %).

    Accuracies are means over seeds; methods that lack a data set are left out.
    Source: Demšar, JMLR 2006. Raises ValueError for fewer than two data sets or methods.
    """
    wide = scores(runs, shots).groupby("dataset").mean().dropna(axis="columns")
    wide = wide[[name for name in wide if methods is None or name in methods]]
    n, k = wide.shape
    if n < 2 or k < 2:
        raise ValueError(f"ranks need at least two data sets and two methods with all of them, got {n} and {k}")
    ranks = wide.rank(axis="columns", ascending=False).mean().sort_values(kind="stable")
    q = stats.studentized_range.ppf(0.95, k, math.inf) / math.sqrt(2)
    return ranks, float(q * math.sqrt(k * (k + 1) / (6 * n)))


def _signed(points: float) -> str:
    return f"{points:+.2f}".replace("-", "−")


def _t_test(values: pd.Series) -> dict:
    n, mean, error = len(values), values.mean(), values.sem()
    if not error > 0:  # one pair, or the same difference everywhere
        return {"n": n, "mean": mean, "low": float("nan"), "high": float("nan"), "p": float("nan")}
    test = stats.ttest_1samp(values, 0.0)
    low, high = test.confidence_interval(0.95)
    return {"n": n, "mean": mean, "low": low, "high": high, "p": test.pvalue}


def selection_table(runs: pd.DataFrame, shots: int) -> pd.DataFrame:
    """Mean accuracy by the choice of the epoch, and what it adds to the last step's.

    Rows: methods with epochs; columns: "last step", "best on validation", "best on
    test" (percent), "validation − last", "test − last" (points). Means over the
    runs that have all three; empty if no method has epochs.
    """
    columns = {
        SCORE: "last step",
        f"{SCORE}_best_val": "best on validation",
        f"{SCORE}_official_selection": "best on test",
    }
    if not set(columns) <= set(runs):
        return pd.DataFrame()
    chosen = runs[(runs.shots == shots) & (runs.method != "zero_shot")].dropna(subset=list(columns))
    table = chosen.groupby("method")[list(columns)].mean().rename(columns=columns)
    table["validation − last"] = table["best on validation"] - table["last step"]
    table["test − last"] = table["best on test"] - table["last step"]
    return table.reindex(method_order(table.index))


def accuracy_table(runs: pd.DataFrame, shots: int, score: str = SCORE) -> pd.DataFrame:
    """Text cells "mean ± sd" in percent over seeds: methods × data sets, and their mean.

    The sd is the sample's (n − 1); one seed has none. Column "seeds" holds the
    number of seeds; a cell with fewer than its row's most ends in "[n]". Zero-shot
    draws nothing and has neither. No run, or no seed with every data set: "–".
    """
    wide = scores(runs, shots, score)
    datasets = list(dict.fromkeys(wide.index.get_level_values("dataset")))
    columns = {name: wide.xs(name, level="dataset") for name in datasets}
    if len(datasets) > 1:
        columns["mean"] = mean_over_datasets(wide)
    counts = pd.DataFrame({name: values.count() for name, values in columns.items()})
    seeds = counts.max(axis=1)
    cells = {
        name: [_cell(values[method].dropna(), seeds[method], method) for method in wide]
        for name, values in columns.items()
    }
    return pd.DataFrame(cells, index=pd.Index([label(method) for method in wide], name="method")).assign(
        seeds=["–" if method == "zero_shot" else str(seeds[method]) for method in wide]
    )


def _cell(values: pd.Series, seeds: int, method: str) -> str:
    if values.empty:
        return "–"
    if method == "zero_shot":
        return f"{values.mean():.1f}"
    spread = f" ± {values.std():.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread}" + (f" [{len(values)}]" if len(values) < seeds else "")


def accuracy_caption(runs: pd.DataFrame, shots: int, score: str = SCORE) -> str:
    """What the accuracy table shows, and whether its best method beats the runner-up.

    The two are those of the highest means over all data sets; they are compared by
    a two-sided paired t-test over all data sets and seeds that both have. As they
    were picked for being first, p is not corrected for that.
    """
    wide = scores(runs, shots, score)
    backbone = runs.backbone.iloc[0]
    text = f"Test accuracy (%) with {shots} shots per class, {backbone}: mean ± standard deviation over seeds; best in bold."
    ranked = mean_over_datasets(wide).mean().dropna().sort_values(ascending=False, kind="stable").index
    if "[" in "".join(accuracy_table(runs, shots, score).to_numpy().ravel()):
        text += " In brackets: the number of seeds where some are missing."
    if len(ranked) < 2:
        return text
    return f"{text} Best against runner-up in the mean: {difference_sentence(runs, ranked[0], ranked[1], shots, score)}"


def to_markdown(table: pd.DataFrame, caption: str = "") -> str:
    """`table` of `accuracy_table` as a Markdown table, best of each column in bold."""
    body = _bold_best(table, "**{}**").to_markdown(stralign="left", disable_numparse=True)
    return f"{body}\n\n{caption}\n" if caption else f"{body}\n"


def to_latex(table: pd.DataFrame, caption: str = "", name: str = "tab:accuracy") -> str:
    """`table` of `accuracy_table` as a LaTeX table for the package booktabs, best in bold."""
    bold = _bold_best(table, r"\textbf{{{}}}").map(_escape)
    bold.index, bold.columns = bold.index.map(_escape), bold.columns.map(_escape)
    bold.index.name = None
    layout = {"hrules": True, "column_format": "l" + "c" * len(bold.columns), "position": "t", "position_float": "centering"}
    return bold.style.to_latex(caption=_escape(caption) or None, label=name, **layout)


def _escape(text: str) -> str:
    for plain, escaped in (("_", r"\_"), ("%", r"\%"), ("&", r"\&"), ("±", r"$\pm$"), ("–", "--"), ("−", "$-$"), ("<", "$<$")):
        text = text.replace(plain, escaped)
    return text


def _bold_best(table: pd.DataFrame, bold: str) -> pd.DataFrame:
    """Every column's highest printed mean in `bold`; equal means are all bold."""
    marked = table.copy()
    for column in table.columns.drop("seeds"):
        means = pd.to_numeric(table[column].str.split(" ").str[0], errors="coerce")
        best = means == means.max()
        marked.loc[best, column] = table.loc[best, column].map(bold.format)
    return marked


def read_table(path: str | Path) -> pd.DataFrame:
    """A table from `figures/data/`; one without a row is empty.

    Raises FileNotFoundError, which says how tables are made.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: `make reproduce` writes it, or give a folder of run records")
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    try:
        return pd.read_csv(path)
    except pd.errors.EmptyDataError:  # no method of the grid has epochs
        return pd.DataFrame()


def write_table(table: pd.DataFrame, path: str | Path, digits: int | None = None) -> None:
    """Write a CSV file, or a parquet file if `path` ends so, in a folder made for it.

    It appears whole or not at all. `digits` are the significant ones of a CSV's
    numbers that are not whole; all if None.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    if path.suffix == ".parquet":
        table.to_parquet(partial, index=False)
    else:
        table.to_csv(partial, index=False, float_format=f"%.{digits}g" if digits else None)
    partial.replace(path)
