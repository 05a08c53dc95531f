"""What others published on the eleven benchmarks, to stand beside one's own runs.

`published.csv` holds top-1 accuracies of peers with the source of each row; rows
marked as rerun or third party are not their authors' own. CBBT's own table is not
shipped: `published_cbbt.csv` has empty cells for a reader with the paper at hand.
Nothing in the kit compares these numbers with its own or says that they match.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cbbt.catalogue import label
from cbbt.data.cards import CARDS
from cbbt.results.tables import scores

FILES = tuple(Path(__file__).with_name(name) for name in ("published.csv", "published_cbbt.csv"))
KEYS = ["method", "backbone", "shots", "source"]
NAMES = {  # what a method is called there → its key here; CoOp's published length is 16
    "Zero-shot CLIP": "zero_shot",
    "CoOp": "coop16",
    "Tip-Adapter-F": "tip_adapter_f",
    "BBT": "bbt",
    "CraFT": "craft",
}


def published(files=FILES) -> pd.DataFrame:
    """All published accuracies: method, backbone, shots, source, dataset, accuracy (percent).

    Cells that are empty have no row. Raises ValueError for a file whose columns are
    not `KEYS` and names of `CARDS`, or for a cell that is no percentage.
    """
    tables = []
    for file in files:
        wide = pd.read_csv(file)
        if set(wide.columns) != {*KEYS, *CARDS}:
            raise ValueError(f"{file} must have the columns {', '.join([*KEYS, *CARDS])}, got {', '.join(wide)}")
        table = wide.melt(KEYS, var_name="dataset", value_name="accuracy").dropna(subset="accuracy")
        if not pd.to_numeric(table.accuracy, errors="coerce").between(0, 100).all():
            raise ValueError(f"{file} has a cell that is no percentage")
        tables.append(table.astype({"accuracy": float}))
    return pd.concat(tables, ignore_index=True)


def references(backbone: str, files=FILES) -> pd.DataFrame:
    """Published accuracies (percent) of one backbone for the methods of `NAMES`, to be drawn beside runs.

    Columns: name (as published), method (its key here), backbone, shots (0: zero-shot), dataset, accuracy.
    Raises ValueError, naming the choices, for a backbone of which nothing is published here.
    """
    known = published(files)
    known = known[known.method.isin(NAMES)].rename(columns={"method": "name"})
    theirs = known[known.backbone == backbone]
    if theirs.empty:
        raise ValueError(f"nothing published of backbone {backbone!r}, choose from {', '.join(dict.fromkeys(known.backbone))}")
    return theirs.assign(method=theirs.name.map(NAMES))[["name", "method", "backbone", "shots", "dataset", "accuracy"]]


def beside(runs: pd.DataFrame, shots: int, files=FILES) -> pd.DataFrame:
    """Own means over seeds above published numbers of the same backbone and shots, in percent.

    A row per method: own ones first, "this kit" as their source; a column per
    benchmark that the runs have. Zero-shot rows have no shots, own or published.
    Empty if no run is on a benchmark. Raises ValueError for a number of shots that
    the runs lack.
    """
    mine = runs[runs.dataset.isin(CARDS)]
    if mine.empty:
        return pd.DataFrame()
    wide = scores(mine, shots)
    own = wide.groupby("dataset", sort=False).mean().T
    own.index = pd.MultiIndex.from_tuples([(label(name), "this kit") for name in own.index], names=["method", "source"])
    theirs = published(files)
    theirs = theirs[(theirs.backbone == mine.backbone.iloc[0]) & theirs.shots.isin([0, shots])]
    theirs = theirs[theirs.dataset.isin(own.columns)]
    theirs = theirs.pivot(index=["method", "source"], columns="dataset", values="accuracy")
    return pd.concat([own, theirs.reindex(columns=own.columns)])
