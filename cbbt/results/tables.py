"""The table of runs: selected, ordered, read and written.

Everything in `cbbt.results` starts from the table of runs (`records.runs_table`,
figures/data/runs.csv). `scores` turns it into one column per method, so that each
row pairs the methods' scores on the same data set with the same shots.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cbbt.catalogue import UNTUNED, method_order
from cbbt.files import whole_file

SCORE = "test_accuracy"  # percent, the last step's model
RUN = ["dataset", "backbone", "method", "shots", "seed"]
ALL = "all data sets"  # the row of a difference over data sets
SPLIT = ("zero_shot", "zero_shot_bare", "cbbt_prompt", "adapter", "cbbt")  # what `gain_split` needs
RESERVED = {"mean", ALL, "method", "shots", "seed", "seeds"}  # names that tables use besides those of data sets
NAMES = {  # columns of text, even if it looks like a number: 2024, NA and 1e5 are names of data sets
    *("run_id", "dataset", "task", "method", "backbone", "pretrained", "variant", "split", "template", "class_names"),
    *("context_init", "options", "commit", "device", "targets", "service", "target", "travels"),
}


def require(table: pd.DataFrame, columns: list[str], keys: list[str] = RUN) -> None:
    """Refuse a table that cannot be drawn.

    Raises ValueError if a column is missing (names it and those present), if the
    table is empty, mixes backbones, or has two rows of the same `keys`.
    """
    _require_columns(table, [*keys, *columns])
    require_one_backbone(table)
    if taken := sorted(RESERVED & set(table.dataset)):
        raise ValueError(f"a data set has the name of a table column, {', '.join(taken)}: give it another name")
    twice = table[table.duplicated(keys, keep=False)]
    if len(twice):
        first = ", ".join(f"{key}={twice.iloc[0][key]}" for key in keys)
        choices = _settings_that_differ(table[(table[keys] == twice.iloc[0][keys]).all(axis=1)])
        raise ValueError(f"the table has two rows of {first}: keep the runs of one setting{choices}")


def _require_columns(table: pd.DataFrame, columns: list[str]) -> None:
    if table.empty:
        raise ValueError("the table has no rows")
    if missing := [column for column in columns if column not in table]:
        raise ValueError(f"the table lacks {', '.join(missing)}; its columns are {', '.join(table)}")


def _settings_that_differ(table: pd.DataFrame) -> str:
    """For an error message: the columns before the scores in which these rows differ, with their values."""
    settings = list(itertools.takewhile(lambda name: "accuracy" not in name, table))
    values = {name: list(dict.fromkeys(table[name].map(str))) for name in settings if name != "run_id"}
    choices = "; ".join(f"{name}: {', '.join(several)}" for name, several in values.items() if len(several) > 1)
    return f" ({choices})" if choices else ""


def require_one_backbone(table: pd.DataFrame) -> None:
    """Raise ValueError for a table that mixes backbones."""
    backbones = sorted(set(table.get("backbone", ())))
    if len(backbones) > 1:
        raise ValueError(f"the table mixes backbones {', '.join(backbones)}: keep the rows of one")


def keep(table: pd.DataFrame, backbone: str = "", dataset: str = "", settings: dict | None = None) -> pd.DataFrame:
    """The rows of one backbone and with these settings (column → value); all rows if neither is given, or for an empty table.

    Raises ValueError, naming the choices, for a backbone or a setting that the table
    lacks, or for a data set that it lacks (rows of other data sets stay).
    """
    if table.empty:
        return table
    wanted = ({"backbone": backbone} if backbone else {}) | (settings or {})
    for column, value in (wanted | ({"dataset": dataset} if dataset else {})).items():
        if column not in table:
            raise ValueError(f"no column {column!r}, choose from {', '.join(table)}")
        fits = table[column].isna() if value is None else table[column] == value
        if not fits.any():
            raise ValueError(f"no row has {column}={value!r}, choose from {', '.join(dict.fromkeys(table[column].map(str)))}")
        table = table[fits] if column in wanted else table
    return table


@dataclass(frozen=True)
class Part:
    """The runs and curves of one backbone, with the shots and the data set for figures of one number or one data set.

    suffix: of its file names, empty for the only backbone; title: likewise.
    """

    backbone: str
    title: str
    suffix: str
    runs: pd.DataFrame
    curves: pd.DataFrame
    shots: int
    dataset: str


def by_backbone(runs: pd.DataFrame, curves: pd.DataFrame, shots: int | None = None, dataset: str = "") -> list[Part]:
    """A part for each backbone, in order of appearance.

    `shots`: the most that the backbone has, if None. `dataset`: its first one, if it lacks this one.
    Raises ValueError for a table without rows or without a column of `RUN`.
    """
    _require_columns(runs, RUN)
    groups = dict(iter(runs.groupby("backbone", sort=False)))
    return [
        Part(
            backbone=name,
            title=name if len(groups) > 1 else "",
            suffix="-" + re.sub(r"[^\w.+-]", "-", name) if len(groups) > 1 else "",
            runs=group,
            curves=curves[curves.backbone == name] if len(curves) else curves,
            shots=max(group.shots) if shots is None else shots,
            dataset=dataset if dataset in set(group.dataset) else group.dataset.iloc[0],
        )
        for name, group in groups.items()
    ]


def those_in(table: pd.DataFrame, methods: list[str]) -> list[str] | None:
    """Those of the methods that are in the table; None, for all of them, if none is in it or none is named."""
    return [name for name in methods if name in set(table.get("method", ()))] or None


def last_epoch(curves: pd.DataFrame, dataset: str, shots: int) -> pd.DataFrame:
    """Means over seeds of each method's last epoch on one data set: steps, loss, and the available accuracies."""
    _require_columns(curves, [*RUN, "epoch"])
    chosen = curves[(curves.dataset == dataset) & (curves.shots == shots)]
    last = chosen[chosen.epoch == chosen.groupby("method").epoch.transform("max")]
    columns = [name for name in ("step", "train_loss", "val_accuracy", SCORE) if name in last and last[name].notna().any()]
    return last.groupby("method")[columns].mean()


def after_equal_steps(curves: pd.DataFrame, methods: list[str], shots: int) -> pd.DataFrame:
    """Test accuracy (percent) of several methods after the number of steps that all of them reached; means over seeds.

    Rows: data sets; columns: "step" (the last that every run of these methods reached) and the methods, each at its
    last epoch that had ended by then. Raises ValueError for a method without a curve at these shots.
    """
    _require_columns(curves, [*RUN, "step", SCORE])
    chosen = curves[curves.method.isin(methods) & (curves.shots == shots)]
    if missing := [name for name in methods if name not in set(chosen.method)]:
        raise ValueError(f"no curve of {', '.join(missing)} with shots={shots}")
    runs = chosen.groupby(["dataset", "method", "seed"], sort=False).step.max()
    common = runs.groupby("dataset", sort=False).min()
    by_then = chosen[chosen.step <= chosen.dataset.map(common)].sort_values("step")
    last = by_then.groupby(["dataset", "method", "seed"])[SCORE].last()
    table = last.groupby(["dataset", "method"]).mean().unstack("method")
    return table.reindex(index=common.index, columns=methods).assign(step=common)[["step", *methods]]


def dataset_order(table: pd.DataFrame) -> list[str]:
    """The table's data sets in order of appearance."""
    return list(dict.fromkeys(table.dataset))


def scores(runs: pd.DataFrame, shots: int, score: str = SCORE) -> pd.DataFrame:
    """Accuracies in percent: rows (dataset, seed), one column per method.

    Untuned methods draw no shots, so their mean per data set is in every row. A missing
    run is NaN; a table of untuned runs only serves for any number of shots. Raises
    ValueError if no run has these shots.
    """
    require(runs, [score])
    untuned = runs.method.isin(UNTUNED)
    tuned = runs[~untuned]
    chosen = tuned[tuned.shots == shots] if len(tuned) else runs
    if chosen.empty:
        available = ", ".join(str(number) for number in sorted(set(tuned.shots)))
        raise ValueError(f"no run has shots={shots}; the table has {available}")
    wide = chosen.pivot(index=["dataset", "seed"], columns="method", values=score)
    for name, own in runs[untuned].groupby("method"):
        wide[name] = wide.index.get_level_values("dataset").map(own.groupby("dataset")[score].mean())
    present = [name for name in dataset_order(runs) if name in wide.index.get_level_values("dataset")]
    return wide[method_order(wide.columns)].reindex(present, level="dataset")


def mean_over_datasets(wide: pd.DataFrame) -> pd.DataFrame:
    """Rows: seeds; one column per method: its mean over all data sets, NaN where one is missing."""
    return pd.DataFrame({method: wide[method].unstack("dataset").mean(axis=1, skipna=False) for method in wide})


def gain_split(runs: pd.DataFrame, shots: int) -> pd.DataFrame:
    """The points over zero-shot split by source: a row per data set and their mean, means over seeds.

    Columns, each in points: "wording" (from the template to the bare prompt from which CBBT starts,
    nothing tuned), "prompt" and "adapter" (either tuned alone, over the bare prompt), "both" (CBBT
    over the bare prompt), "in all" (CBBT over the template). Raises ValueError, which names it, for a missing method.
    """
    if missing := [name for name in SPLIT if name not in set(runs.method)]:
        raise ValueError(f"the gain of CBBT cannot be split: no run of {', '.join(missing)}")
    wide = scores(runs, shots).groupby("dataset", sort=False).mean()
    bare = wide.zero_shot_bare
    table = pd.DataFrame(
        {
            "wording": bare - wide.zero_shot,
            "prompt": wide.cbbt_prompt - bare,
            "adapter": wide.adapter - bare,
            "both": wide.cbbt - bare,
            "in all": wide.cbbt - wide.zero_shot,
        }
    )
    return pd.concat([table, table.mean().to_frame("mean").T]) if len(table) > 1 else table


def selection_table(runs: pd.DataFrame, shots: int) -> pd.DataFrame:
    """Mean accuracy by the choice of the epoch, and its gain over the last step's.

    Rows: methods with epochs; columns: "last step", "best on validation", "best on
    test" (percent), "validation − last", "test − last" (points), "looks" (the number of
    models over which the best on test is the maximum: the more, the larger its bias). Means
    over the runs that have all three; empty if no method has epochs. Raises ValueError for a table without looks.
    """
    columns = {SCORE: "last step", f"{SCORE}_best_val": "best on validation", f"{SCORE}_official_selection": "best on test"}
    if not set(columns) <= set(runs):
        return pd.DataFrame()
    _require_columns(runs, ["looks"])
    chosen = runs[runs.shots == shots].dropna(subset=list(columns))
    table = chosen.groupby("method")[list(columns)].mean().rename(columns=columns)
    table["validation − last"] = table["best on validation"] - table["last step"]
    table["test − last"] = table["best on test"] - table["last step"]
    table["looks"] = chosen.groupby("method").looks.mean()
    return table.reindex(method_order(table.index))


def read_table(path: str | Path) -> pd.DataFrame:
    """A table from `figures/data/`, which may be empty.

    A CSV's columns of names (`NAMES`, versions) are text, empty cells missing values. Raises
    FileNotFoundError, which says how to make the tables.
    """
    path = Path(path).expanduser().absolute()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: write it by `make reproduce`, or give a folder of run records")
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    try:
        text = {name: str for name in pd.read_csv(path, nrows=0) if name in NAMES or name.endswith("_version")}
        return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
    except pd.errors.EmptyDataError:  # no method of the grid has epochs
        return pd.DataFrame()


def read_beside(folder: str | Path, name: str, table: pd.DataFrame) -> pd.DataFrame:
    """The runs of another comparison, `name/runs.csv` beside a table's folder, on that table's data sets and backbones.

    Without rows where there is no such file. Needs columns dataset, backbone.
    """
    path = Path(folder).parent / name / "runs.csv"
    other = read_table(path) if path.exists() else table.iloc[:0]
    return other[other.dataset.isin(table.dataset) & other.backbone.isin(table.backbone)]


def write_table(table: pd.DataFrame, path: str | Path, digits: int | None = None) -> None:
    """Write a CSV file, or a parquet file by the ending of `path`, atomically; its folder is created.

    `digits`: significant digits of a CSV's numbers that are not integers; all if None.
    """
    path = Path(path).expanduser()
    with whole_file(path) as partial:
        if path.suffix == ".parquet":
            table.to_parquet(partial, index=False)
        else:
            table.to_csv(partial, index=False, float_format=f"%.{digits}g" if digits else None, encoding="utf-8")
