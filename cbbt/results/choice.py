"""Settings chosen on validation: which of a grid's variants suits a method best.

Reads tables of runs that were judged on the validation pools (`judge: validation`,
see configs/validation.yaml); a table that holds test accuracies is refused.
"""

from __future__ import annotations

import pandas as pd

from cbbt.results.tables import require_one_backbone

VALIDATION = "validation_accuracy"


def settings_table(runs: pd.DataFrame, fields: list[str], method: str) -> pd.DataFrame:
    """Mean validation accuracy of a method in percent: a row per setting, a column per number of shots.

    `fields` are the columns of `runs` that make up a setting. Means are over data
    sets and seeds; the last column, "mean", is that over the numbers of shots, and
    the best setting stands first, ties in the order of the table.
    Raises ValueError for a table that was judged on another split, mixes backbones, or lacks the method.
    """
    if VALIDATION not in runs or set(runs.judge) != {"validation"}:
        raise ValueError("settings are chosen on validation: expected runs with judge=validation alone")
    require_one_backbone(runs)
    chosen = runs[runs.method == method]
    if chosen.empty:
        raise ValueError(f"no run of method {method!r}, choose from {', '.join(dict.fromkeys(runs.method))}")
    table = chosen.pivot_table(index=fields, columns="shots", values=VALIDATION, aggfunc="mean", sort=False)
    table["mean"] = table.mean(axis=1)
    return table.sort_values("mean", ascending=False, kind="stable")


def best_setting(runs: pd.DataFrame, fields: list[str], method: str) -> dict:
    """The first row of `settings_table`, as fields of `RunConfig`."""
    first = settings_table(runs, fields, method).reset_index()[fields].iloc[:1]
    return first.astype(object).to_dict("records")[0]  # as objects: plain numbers
