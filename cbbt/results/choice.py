"""Choice of settings on validation, leaving one task out.

Reads tables of runs evaluated on the validation pools (`judge: validation`, see
configs/search.yaml); a table that holds test accuracies is refused.
"""

from __future__ import annotations

import pandas as pd

from cbbt.results.tables import dataset_order, require_one_backbone

VALIDATION = "validation_accuracy"


def candidates(runs: pd.DataFrame, fields: list[str], method: str, shots: int) -> pd.DataFrame:
    """Mean validation accuracy over seeds, in percent, of a method's candidates: a row per setting, a column per data set.

    `fields` are the columns of `runs` that make up a setting; rows are in the order of the table.
    Raises ValueError for a table evaluated on another split, one that mixes backbones, or one without such runs.
    """
    if VALIDATION not in runs or set(runs.judge) != {"validation"}:
        raise ValueError("settings are chosen on validation: expected only runs with judge=validation")
    require_one_backbone(runs)
    chosen = runs[(runs.method == method) & (runs.shots == shots)]
    if chosen.empty:
        present = sorted(set(zip(runs.method, runs.shots)))
        raise ValueError(f"no run of {method!r} with shots={shots}, choose from {', '.join(f'{m} {s}' for m, s in present)}")
    table = chosen.pivot_table(index=fields, columns="dataset", values=VALIDATION, aggfunc="mean", sort=False, dropna=False)
    return table.dropna(how="all")[dataset_order(chosen)]


def leave_one_out(table: pd.DataFrame) -> pd.Series:
    """For each data set (column of `table`) the candidate (row) with the highest mean over the others; the first, if several."""
    if len(table.columns) < 2:
        raise ValueError(f"a choice on the other data sets needs at least two data sets, got {', '.join(table)}")
    return pd.Series({name: table.drop(columns=name).mean(axis=1).idxmax() for name in table})


def left_out_accuracy(table: pd.DataFrame) -> pd.Series:
    """Each data set's accuracy under the candidate that the other data sets chose (`leave_one_out`)."""
    return pd.Series({name: table.loc[candidate, name] for name, candidate in leave_one_out(table).items()})
