"""Published numbers on the eleven benchmarks, for comparison with a user's own runs.

`published.csv` holds top-1 accuracies of peers with the source of each row; rows
marked as rerun or third party are not the authors' own. CBBT's own table is not
shipped: `published_cbbt.csv` has empty cells, to be filled from the paper.
Nothing in the kit compares these numbers with its own or says that they match.

Each row belongs to one of `PROTOCOLS`, and a table has rows of one protocol only:

- few-shot: CoOp's shots and test splits, with the comparisons of the peers' own papers.
- features: the same benchmarks for methods that use only features. They differ in the
  data they use, as two columns say: `text`, the sentences behind the class features (GPT-3's,
  collected by CuPL, are stronger than templates), and `chosen_on`, the data on which settings
  or the epoch were chosen (for most the full validation split, many times the shots; on
  ImageNet the test split). GDA, ProKeR and similar methods draw other shots than CoOp; they
  see 10 augmented views of each, others 1 to 20.
- base, new: 16 shots of the first half of the classes, tested on that half and on the other
  (CoOp's and CoCoOp's rule); `average` as printed, over the eleven.
- shift: tuned on ImageNet with 16 shots, tested on it and on its four variants.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cbbt.catalogue import label
from cbbt.checks import choose
from cbbt.data.cards import CARDS
from cbbt.results.tables import scores

FILES = tuple(Path(__file__).with_name(name) for name in ("published.csv", "published_cbbt.csv"))
KEYS = ["method", "backbone", "shots", "source"]
UNSAID = {"protocol": "few-shot", "text": "", "chosen_on": ""}  # optional columns, and the meaning of an empty cell
PROTOCOLS = ("few-shot", "features", "base", "new", "shift")
SHIFTS = ("imagenet_v2", "imagenet_sketch", "imagenet_a", "imagenet_r")
NAMES = {  # published name → key here; CoOp's published context length is 16
    "Zero-shot CLIP": "zero_shot",
    "CoOp": "coop16",
    "Tip-Adapter-F": "tip_adapter_f",
    "BBT": "bbt",
    "CraFT": "craft",
}


def published(files=FILES, protocol: str = "few-shot") -> pd.DataFrame:
    """The accuracies (percent) published under one of `PROTOCOLS`.

    Columns: method, backbone, shots, source, text, chosen_on, dataset, accuracy; dataset is a key of
    `CARDS`, one of `SHIFTS`, or "average". Empty cells give no row; a row without a protocol is
    few-shot. Raises ValueError for another protocol, for a file that lacks a column of `KEYS` or
    `CARDS` or has an unknown one, and for a cell that is not a percentage.
    """
    choose("protocol", protocol, PROTOCOLS)
    needed, known = [*KEYS, *CARDS], [*KEYS, *UNSAID, *CARDS, *SHIFTS, "average"]
    tables = []
    for file in files:
        wide = pd.read_csv(file)
        if not set(needed) <= set(wide.columns) <= set(known):
            raise ValueError(f"{file} must have the columns {', '.join(needed)}, got {', '.join(wide)}")
        wide = wide.reindex(columns=known).astype(dict.fromkeys(UNSAID, object)).fillna(UNSAID)
        for other in set(wide.protocol) - set(PROTOCOLS):
            choose(f"protocol in {file}", other, PROTOCOLS)
        wide = wide[wide.protocol == protocol].drop(columns="protocol")
        table = wide.melt([*KEYS, "text", "chosen_on"], var_name="dataset", value_name="accuracy").dropna(subset="accuracy")
        if not pd.to_numeric(table.accuracy, errors="coerce").between(0, 100).all():
            raise ValueError(f"{file} has a cell that is not a percentage")
        tables.append(table.astype({"accuracy": float}))
    return pd.concat(tables, ignore_index=True)


def references(backbone: str, files=FILES) -> pd.DataFrame:
    """Published accuracies (percent) of one backbone for the methods of `NAMES`, for figures with own runs.

    Columns: name (as published), method (its key here), backbone, shots (0: zero-shot), dataset, accuracy.
    Raises ValueError, naming the choices, for a backbone without published numbers here.
    """
    known = published(files)
    known = known[known.method.isin(NAMES)].rename(columns={"method": "name"})
    theirs = known[known.backbone == backbone]
    if theirs.empty:
        raise ValueError(f"nothing published for backbone {backbone!r}, choose from {', '.join(dict.fromkeys(known.backbone))}")
    return theirs.assign(method=theirs.name.map(NAMES))[["name", "method", "backbone", "shots", "dataset", "accuracy"]]


def beside(runs: pd.DataFrame, shots: int, files=FILES) -> pd.DataFrame:
    """Own means over seeds, followed by published numbers of the same backbone and shots, in percent.

    A row per method: own ones first, with source "this kit"; a column per
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
