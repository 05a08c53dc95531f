"""The field at one glance: what each method needs, reaches and costs.

Reads the table of runs alone; notebook 05 shows it.
"""

from __future__ import annotations

import pandas as pd

from cbbt.catalogue import CATALOGUE, UNTUNED, label, method_order
from cbbt.results.tables import mean_over_datasets, scores

COST = {"learned": "numbers learned", "loss_queries": "loss queries", "class_prompts": "class prompts", "images": "images",
        "fit_seconds": "seconds", "peak_megabytes": "memory (MB)"}  # fmt: skip


def access_table(methods) -> pd.DataFrame:
    """What each method needs of the box, and what it tunes; a row per method."""
    rows = {label(name): {"needs": CATALOGUE[name].access, "tunes": CATALOGUE[name].learns} for name in method_order(methods)}
    return pd.DataFrame(rows).T.rename_axis("method")


def peers_table(runs: pd.DataFrame, shots: int) -> pd.DataFrame:
    """Accuracy and price of each method at one number of shots, the most accurate first.

    Columns: what the box must take or give; the mean accuracy over all data sets in
    percent and its standard deviation over seeds; seeds; then means over all runs of
    `COST`. Raises ValueError if no run has these shots.
    """
    accuracy = mean_over_datasets(scores(runs, shots))
    chosen = runs[(runs.shots == shots) | runs.method.isin(UNTUNED)].groupby("method")
    table = pd.DataFrame(
        {
            "access": {name: CATALOGUE[name].access if name in CATALOGUE else "" for name in accuracy},
            "accuracy": accuracy.mean(),
            "sd": accuracy.std().where(~accuracy.columns.isin(UNTUNED)),
            "seeds": accuracy.count(),
        }
    )
    table = table.join(chosen[list(COST)].mean().rename(columns=COST)).sort_values("accuracy", ascending=False, kind="stable")
    return table.rename(index=label).rename_axis("method")


def improves(runs: pd.DataFrame, dataset: str, shots: int) -> pd.Series:
    """Each method's mean gain over zero-shot on one data set, in points, the highest first.

    Raises ValueError for a table without zero-shot runs of it.
    """
    wide = scores(runs[runs.dataset == dataset], shots)
    if "zero_shot" not in wide:
        raise ValueError(f"no zero-shot run on {dataset!r}; the table has {', '.join(wide)}")
    gains = wide.sub(wide["zero_shot"], axis=0).drop(columns=list(UNTUNED), errors="ignore").mean()
    return gains.sort_values(ascending=False, kind="stable").rename(index=label)
