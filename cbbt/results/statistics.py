"""What differences between methods are worth: paired differences, intervals, ranks.

Reads the table of runs (see `cbbt.results.tables`); every comparison is between
methods on the same data set, shots and seed.
"""

from __future__ import annotations

import math

import pandas as pd
from scipy import stats

from cbbt.catalogue import label
from cbbt.results.tables import SCORE, scores


def differences(runs: pd.DataFrame, method: str, baseline: str, shots: int, score: str = SCORE) -> pd.DataFrame:
    """`method` minus `baseline` in points, a row per data set and seed that has both.

    Columns: dataset, seed, difference. Raises ValueError for a method that the
    table lacks (names those present) or if no data set and seed has both.
    """
    wide = scores(runs, shots, score)
    for name in (method, baseline):
        if name not in wide:
            raise ValueError(f"no run of method {name!r} with shots={shots}; the table has {', '.join(wide)}")
    paired = (wide[method] - wide[baseline]).dropna().rename("difference").reset_index()
    if paired.empty:
        raise ValueError(f"no data set and seed has both {method!r} and {baseline!r} with shots={shots}")
    return paired


def difference_table(runs: pd.DataFrame, method: str, baseline: str, shots: int, score: str = SCORE) -> pd.DataFrame:
    """Mean differences with 95 % t intervals: a row per data set, then "all pairs".

    Columns: n (pairs), mean, low, high (points), p (two-sided paired t-test). With
    one pair there is no interval: NaN. "all pairs" takes every data set and seed
    as one independent pair, though seeds of one data set share its test split.
    """
    paired = differences(runs, method, baseline, shots, score)
    groups = dict(iter(paired.groupby("dataset", sort=False).difference)) | {"all pairs": paired.difference}
    return pd.DataFrame({name: _t_test(values) for name, values in groups.items()}).T.astype({"n": int})


def peer_table(runs: pd.DataFrame, method: str, shots: int) -> pd.DataFrame:
    """`method` minus every other tuned method that shares a data set and seed with it, over all pairs.

    Rows: the other methods; columns as in `difference_table`, and "p, Holm": p corrected
    for the number of methods compared (Holm 1979). Raises ValueError for a method that the table lacks, or if no
    other shares anything with it.
    """
    wide = scores(runs, shots).drop(columns="zero_shot", errors="ignore")
    if method not in wide:
        raise ValueError(f"no run of method {method!r} with shots={shots}; the table has {', '.join(wide)}")
    peers = [name for name in wide if name != method and (wide[method] - wide[name]).notna().any()]
    if not peers:
        raise ValueError(f"no other method shares a data set and a seed with {method!r} for shots={shots}")
    table = pd.DataFrame({peer: difference_table(runs, method, peer, shots).loc["all pairs"] for peer in peers}).T
    ranked = table.p.sort_values()
    steps = ranked * [*range(len(ranked), 0, -1)]  # the smallest p times the number of tests, the next times one less, …
    table["p, Holm"] = steps.cummax().clip(upper=1.0)
    return table.astype({"n": int})


def difference_sentence(runs: pd.DataFrame, method: str, baseline: str, shots: int, score: str = SCORE) -> str:
    """`method` minus `baseline` over all pairs, and whether that is a finding, in words."""
    line = difference_table(runs, method, baseline, shots, score).loc["all pairs"]
    text = f"{label(method)} − {label(baseline)}: {_signed(line['mean'])} points"
    if pd.isna(line.p):
        return f"{text} (pairs of data set and seed: {line.n:.0f}, no test)."
    p = "p < 0.001" if line.p < 0.001 else f"p = {line.p:.3f}"
    verdict = "beyond chance" if line.p < 0.05 else "within chance"
    return (
        f"{text}, {verdict} at the 5 % level (95 % t interval {_signed(line.low)} to {_signed(line.high)}, "
        f"paired t-test over {line.n:.0f} pairs of data set and seed, {p})."
    )


def mean_ranks(runs: pd.DataFrame, shots: int, methods: list[str] | None = None) -> tuple[pd.Series, float]:
    """(mean rank of each method over data sets, best first; critical difference of Nemenyi's test at 5 %).

    Accuracies are means over seeds; methods that lack a data set are left out.
    Source: Demšar, JMLR 2006. Raises ValueError for fewer than two data sets or methods.
    """
    wide = scores(runs, shots).groupby("dataset").mean().dropna(axis="columns")
    wide = wide[[name for name in wide if methods is None or name in methods]]
    n, k = wide.shape
    if n < 2 or k < 2:
        raise ValueError(f"ranks need at least two data sets and two methods with all of them, got {n} and {k}")
    ranks = wide.rank(axis="columns", ascending=False).mean().sort_values(kind="stable")
    q = stats.studentized_range.ppf(0.95, k, math.inf) / math.sqrt(2)
    return ranks, float(q * math.sqrt(k * (k + 1) / (6 * n)))


def _signed(points: float) -> str:
    return f"{points:+.2f}".replace("-", "−")


def _t_test(values: pd.Series) -> dict:
    n, mean, error = len(values), values.mean(), values.sem()
    if not error > 0:  # one pair, or the same difference everywhere
        return {"n": n, "mean": mean, "low": float("nan"), "high": float("nan"), "p": float("nan")}
    test = stats.ttest_1samp(values, 0.0)
    low, high = test.confidence_interval(0.95)
    return {"n": n, "mean": mean, "low": low, "high": high, "p": test.pvalue}
