"""Comparison of gradient estimators by training a prompt with each.

Runs of the prompt-only method that differ only in their estimator, at the same number
of loss queries per step, evaluated on the validation pool: an estimator is a setting,
and settings are not chosen on the test split.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cbbt.gradients.directions import DIRECTIONS
from cbbt.runs.config import RunConfig
from cbbt.runs.experiment import run_all

# Name → fields of `RunConfig`. All send the same number of prompts per step: scoring them on more
# images is free, because the text features of a prompt do not depend on the images.
ESTIMATORS = {name: {"directions": name, "scoring": "batch"} for name in (*DIRECTIONS, "guided")}
ESTIMATORS["sphere, two-sided"] = {"directions": "sphere", "scoring": "batch", "differences": "two-sided"}
ESTIMATORS |= {
    f"{name}, whole support": {"directions": name, "scoring": "support"}
    for name in ("sphere", "orthogonal", "guided", "remembering")
}


def accuracy_by_estimator(
    common: dict,
    seeds: list[int],
    estimators: dict[str, dict] | None = None,
    out: str | Path | None = None,
    root: str | Path | None = None,
    cache: str | Path | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Histories of `cbbt_prompt` under each estimator, `ESTIMATORS` if None.

    `common` holds fields of `RunConfig` for all runs (data set, shots, q, epochs, …).
    Two-sided differences get half of its q, which needs as many prompts: 2 · q/2, and
    the context itself for the step's text features. `out` keeps the runs, so that they
    are not repeated; `cache` keeps image features.
    Columns: estimator, seed, n_judged (images of the validation pool), step, train_loss,
    validation_accuracy, loss_queries, class_prompts; one row per epoch.
    """
    estimators = ESTIMATORS if estimators is None else estimators
    choices = [(name, seed) for name in estimators for seed in seeds]
    configs = []
    for name, seed in choices:
        values = common | estimators[name] | {"method": "cbbt_prompt", "seed": seed, "judge": "validation"}
        if values.get("differences") == "two-sided":
            values["q"] = max(values["q"] // 2, 1)
        configs.append(RunConfig.from_dict(values))
    kept = ("step", "train_loss", "validation_accuracy", "loss_queries", "class_prompts")
    records = run_all(configs, out, root=root, cache=cache, progress=progress)
    return pd.DataFrame(
        {"estimator": name, "seed": seed, "n_judged": record["n_judged"]} | {column: row[column] for column in kept}
        for (name, seed), record in zip(choices, records, strict=True)
        for row in record["history"]
    )
