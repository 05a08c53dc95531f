"""Whether a better gradient makes a better prompt: training with one estimator after another.

Runs of the prompt-only method that differ in their estimator alone, at the same
number of loss queries a step, judged on the validation pool: an estimator is a
setting, and settings are not chosen on the test split.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from cbbt.config import RunConfig
from cbbt.experiment import run

# Name → fields of `RunConfig`. All ask the same prompts a step: what they are scored on
# is free, because the text features of a prompt do not depend on the images.
ESTIMATORS = {
    "sphere": {"directions": "sphere", "scoring": "batch"},
    "coordinate": {"directions": "coordinate", "scoring": "batch"},
    "orthogonal": {"directions": "orthogonal", "scoring": "batch"},
    "sphere, whole support": {"directions": "sphere", "scoring": "support"},
    "orthogonal, whole support": {"directions": "orthogonal", "scoring": "support"},
    "remembering, whole support": {"directions": "remembering", "scoring": "support"},
}


def accuracy_by_estimator(
    common: dict,
    seeds: list[int],
    estimators: dict[str, dict] | None = None,
    out: str | Path | None = None,
    root: str | Path | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Histories of `cbbt_prompt` under each estimator, `ESTIMATORS` if None.

    `common` holds fields of `RunConfig` for all runs (data set, shots, q, epochs, …);
    `out` keeps the runs, so that they are not repeated.
    Columns: estimator, seed, step, train_loss, validation_accuracy, loss_queries,
    class_prompts; one row per epoch.
    """
    estimators = ESTIMATORS if estimators is None else estimators
    table = []
    choices = [(name, seed) for name in estimators for seed in seeds]
    for name, seed in tqdm(choices, desc="training", disable=not progress, leave=False):
        values = common | estimators[name] | {"method": "cbbt_prompt", "seed": seed, "judge": "validation"}
        record = run(RunConfig.from_dict(values), out=out, root=root)
        kept = ("step", "train_loss", "validation_accuracy", "loss_queries", "class_prompts")
        table += [
            {"estimator": name, "seed": seed} | {column: row[column] for column in kept} for row in record["history"]
        ]
    return pd.DataFrame(table)
