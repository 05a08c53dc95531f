"""The table of runs: selected, ordered, read and written.

Everything in `cbbt.results` starts from the table of runs (`records.runs_table`,
figures/data/runs.csv). `scores` turns it into one column per method, so that the
rows pair what the methods reached on the same data set with the same shots.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cbbt.catalogue import method_order

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


def selection_table(runs: pd.DataFrame, shots: int) -> pd.DataFrame:
    """Mean accuracy by the choice of the epoch, and what it adds to the last step's.

    Rows: methods with epochs; columns: "last step", "best on validation", "best on
    test" (percent), "validation − last", "test − last" (points). Means over the
    runs that have all three; empty if no method has epochs.
    """
    columns = {SCORE: "last step", f"{SCORE}_best_val": "best on validation", f"{SCORE}_official_selection": "best on test"}
    if not set(columns) <= set(runs):
        return pd.DataFrame()
    chosen = runs[(runs.shots == shots) & (runs.method != "zero_shot")].dropna(subset=list(columns))
    table = chosen.groupby("method")[list(columns)].mean().rename(columns=columns)
    table["validation − last"] = table["best on validation"] - table["last step"]
    table["test − last"] = table["best on test"] - table["last step"]
    return table.reindex(method_order(table.index))


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
