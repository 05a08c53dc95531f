"""Results beyond a run's own test split: new classes, other data sets, shifted images, restricted services.

Reads the table of targets (`cbbt.results.records.targets_table`) and, for services, the table of runs. A
mean is first over the seeds of a data set, then over data sets, each one observation. Gains
are over the bare prompt "a <class>." on the same images, in points.
"""

from __future__ import annotations

import pandas as pd

from cbbt.catalogue import UNTUNED, method_order
from cbbt.results.statistics import holm, t_tests
from cbbt.results.tables import RUN, SCORE, require

OWN, NEW = "own", "new"
OWN_SPLIT, BASE, NEW_CLASSES, ACROSS = "own test split", "base classes", "new classes", "other data sets"  # places
SERVICES = ("full", "half", "int8", "noise1e-3", "noise1e-2", "logits", "top5", "labels")  # from full to most restricted
KEYS = [*RUN, "classes", "service", "target"]


def by_place(targets: pd.DataFrame, shots: int | None = None) -> pd.DataFrame:
    """Runs with the full service, a row per data set, method, seed and place: accuracy, ece, zero_shot (percent), gain, travels.

    Places: the own test split, or its half of base classes; the new classes; the mean of the other data sets; each
    shift by its name. shots: the most that the table has, if None; untuned methods serve for any number.
    Raises ValueError for a table with two rows of one run and target, or without these shots.
    """
    require(targets, ["accuracy", "ece", "zero_shot", "travels"], KEYS)
    shots = targets.shots.max() if shots is None else shots
    table = targets[(targets.shots == shots) | targets.method.isin(UNTUNED)]
    if not (table.shots == shots).any():
        raise ValueError(f"no row has shots={shots}; the table has {', '.join(map(str, sorted(set(targets.shots))))}")
    shifted = table.travels == "all"  # the classes are those that the method was fitted on
    own = table.classes.map({"all": OWN_SPLIT, "base": BASE})
    place = table.target.where(shifted, ACROSS).mask(table.target == NEW, NEW_CLASSES).mask(table.target == OWN, own)
    shown = (table.service == "full") & (
        (table.classes == "all") | place.isin([BASE, NEW_CLASSES])
    )  # no base classes under shift
    table = table.assign(place=place, gain=table.accuracy - table.zero_shot)[shown]
    means = {name: (name, "mean") for name in ("accuracy", "ece", "zero_shot", "gain")}
    keys = ["dataset", "backbone", "method", "seed", "place"]
    return table.groupby(keys, sort=False).agg(**means, travels=("travels", "first")).reset_index()


def over_data_sets(places: pd.DataFrame, column: str) -> pd.DataFrame:
    """Means of a column of `by_place`: a row per method and a column per place."""
    of_each = places.groupby(["method", "place", "dataset"])[column].mean()
    wide = of_each.groupby(["method", "place"]).mean().unstack("place")
    first = [place for place in (OWN_SPLIT, BASE, NEW_CLASSES, ACROSS) if place in wide]
    order = [*first, *dict.fromkeys(place for place in places.place if place not in first)]
    return wide.reindex(index=method_order(wide.index), columns=order).rename_axis(columns=None)


def base_to_new(places: pd.DataFrame) -> pd.DataFrame:
    """Accuracy (percent) on the classes that a method was fitted on, and on the new ones; a row per method.

    Columns: base, new, H = 2BN / (B + N) of these means, as in the field's "average" rows, and travels: the parts of the
    fitted model used for the new classes. Source: Zhou et al., CVPR 2022. Raises ValueError without such runs.
    """
    if NEW_CLASSES not in set(places.place):
        raise ValueError("no run fitted on base classes was evaluated on new ones")
    table = over_data_sets(places, "accuracy")[[BASE, NEW_CLASSES]].set_axis(["base", "new"], axis=1)
    table["H"] = harmonic_mean(table.base, table.new)
    table["travels"] = places[places.place == NEW_CLASSES].groupby("method").travels.first()
    return table


def harmonic_mean(base, new):
    """H = 2BN / (B + N)."""
    return 2 * base * new / (base + new)


def gain_tests(places: pd.DataFrame, method: str, baseline: str | None = None) -> pd.DataFrame:
    """`method` minus `baseline` in points, or its gain over the bare prompt if None: a row per place.

    Over data sets, each one observation, the mean over its seeds; columns as in
    `cbbt.results.statistics.difference_table`, and "p, Holm", corrected for the places.
    Raises ValueError, which names those present, for a method that the table lacks.
    """
    for name in filter(None, (method, baseline)):
        if name not in set(places.method):
            raise ValueError(f"no row of method {name!r}; the table has {', '.join(method_order(places.method))}")
    keys = ["place", "dataset", "seed"]
    values = places[places.method == method].set_index(keys)["accuracy" if baseline else "gain"]
    if baseline:
        values = values - places[places.method == baseline].set_index(keys).accuracy
    of_each = values.dropna().groupby(["place", "dataset"], sort=False).mean()
    rows = {place: t_tests(of_each[place]) for place in over_data_sets(places, "gain") if place in of_each.index.levels[0]}
    table = pd.DataFrame(rows).T.astype({"n": int})
    table["p, Holm"] = holm(table.p)
    return table


def by_service(runs: pd.DataFrame, shots: int | None = None) -> pd.DataFrame:
    """Test accuracy (percent) of each method with each service, NaN if it was not run: a row per method.

    `runs`: a table of runs. Means over the data sets on which the method has all its
    services. Raises ValueError for two runs of one setting.
    """
    require(runs, [SCORE], [*RUN, "classes", "service"])
    shots = runs.shots.max() if shots is None else shots
    chosen = runs[(runs.classes == "all") & ((runs.shots == shots) | runs.method.isin(UNTUNED))]
    of_each = chosen.groupby(["method", "dataset", "service"])[SCORE].mean().unstack("service")
    means = {name: part.dropna(axis=1, how="all").dropna().mean() for name, part in of_each.groupby("method")}
    wide = pd.DataFrame(means).T
    present = [name for name in SERVICES if name in wide]
    return wide.reindex(index=method_order(wide.index), columns=present).rename_axis(columns=None)
