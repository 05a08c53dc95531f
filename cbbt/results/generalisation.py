"""What tables of targets say: new classes, other data sets, shifted images, poorer services.

Reads the table of targets (`cbbt.results.records.targets_table`, figures/data/generalisation/targets.csv).
Every mean is first over the seeds of a data set, then over data sets, each one observation.
"""

from __future__ import annotations

import pandas as pd

from cbbt.catalogue import method_order
from cbbt.results.tables import require

OWN, NEW = "own", "new"
KEYS = ["dataset", "backbone", "method", "shots", "seed", "classes", "service", "target"]


def over_data_sets(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Means of a column, a row per method and a column per target."""
    of_each = table.groupby(["method", "target", "dataset"])[column].mean()
    wide = of_each.groupby(["method", "target"]).mean().unstack("target")
    return wide.reindex(method_order(wide.index))


def base_to_new(targets: pd.DataFrame) -> pd.DataFrame:
    """Accuracy (percent) on the classes that a method was fitted on, and on the new ones; a row per method.

    Columns: base, new, H = 2BN / (B + N) of these means, as the field's "average" rows have it, and travels: what of
    the fitted model was used for the new classes. Source: Zhou et al., CVPR 2022. Raises ValueError for a table
    without such runs, or with two rows of one run.
    """
    require(targets, ["accuracy"], KEYS)
    fitted = targets[(targets.classes == "base") & targets.target.isin([OWN, NEW])]
    if fitted.empty:
        raise ValueError("no run fitted on base classes was judged on new ones")
    table = over_data_sets(fitted, "accuracy").rename(columns={OWN: "base"})[["base", NEW]].rename_axis(columns=None)
    table["H"] = 2 * table.base * table[NEW] / (table.base + table[NEW])
    if "travels" in fitted:
        table["travels"] = fitted[fitted.target == NEW].groupby("method").travels.first()
    return table
