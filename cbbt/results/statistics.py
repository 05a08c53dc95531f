"""Differences between methods: paired differences, intervals, tests.

Reads the table of runs (see `cbbt.results.tables`); every comparison is between
methods on the same data set, shots and seed.
"""

from __future__ import annotations

import math

import pandas as pd
from scipy import stats

from cbbt.catalogue import UNTUNED, label
from cbbt.results.tables import ALL, SCORE, scores

LEVEL = 0.05
MARGIN = 1.0  # points within which two methods count as equal: the standard error of one accuracy on 2,000 test images


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


def groups(paired: pd.DataFrame) -> dict[str, pd.Series]:
    """The values behind each mean: a data set's seeds, and for `ALL`, if there are several data sets, their means.

    paired: of `differences`.
    """
    seeds = dict(iter(paired.groupby("dataset", sort=False).difference))
    means = pd.Series({name: values.mean() for name, values in seeds.items()})
    return seeds | ({ALL: means} if len(seeds) > 1 else {})


def difference_table(runs: pd.DataFrame, method: str, baseline: str, shots: int, score: str = SCORE) -> pd.DataFrame:
    """Mean differences with 95 % t intervals: a row per data set and, for several, the headline row `ALL`.

    A data set's row is over its seeds, which share a test split: it covers the draw of the
    shots, for this split only. Seeds of one data set are not independent of each other, so
    `ALL` takes each data set as one observation, the mean over its seeds: with the same
    number of seeds everywhere, this is the interval of the mixed model with random data
    sets, n − 1 degrees of freedom, and holds for data sets like these.

    Columns: n (seeds, or data sets), mean, low, high (points), p (two-sided t-test
    against 0), "p, equal" (two one-sided t-tests against ± `MARGIN`, Schuirmann 1987: below
    0.05 the two are equal within the margin). One value has neither interval nor test: NaN.
    """
    return _tests(groups(differences(runs, method, baseline, shots, score)))


def peer_table(runs: pd.DataFrame, method: str, shots: int) -> pd.DataFrame:
    """`method` minus every other tuned method that shares a data set and seed with it, over all data sets.

    Rows: the other methods; columns as in `difference_table`, and "p, Holm": p corrected
    for the number of methods compared (Holm 1979). Raises ValueError for a method that the table lacks, or one
    that shares no data set and seed with another.
    """
    wide = scores(runs, shots).drop(columns=list(UNTUNED), errors="ignore")
    if method not in wide:
        raise ValueError(f"no run of method {method!r} with shots={shots}; the table has {', '.join(wide)}")
    peers = [name for name in wide if name != method and (wide[method] - wide[name]).notna().any()]
    if not peers:
        raise ValueError(f"no other method shares a data set and a seed with {method!r} for shots={shots}")
    table = pd.DataFrame({peer: difference_table(runs, method, peer, shots).iloc[-1] for peer in peers}).T
    table["p, Holm"] = holm(table.p)
    return table.astype({"n": int})


def holm(p: pd.Series) -> pd.Series:
    """Values of p corrected for their number (Holm 1979), used wherever several differences are tested together."""
    ranked = p.dropna().sort_values()
    steps = ranked * [*range(len(ranked), 0, -1)]  # the smallest p times the number of tests, the next times one less, …
    return steps.cummax().clip(upper=1.0).reindex(p.index)


def difference_sentence(runs: pd.DataFrame, method: str, baseline: str, shots: int, score: str = SCORE) -> str:
    """`method` minus `baseline` over all data sets, and whether a difference or equality is shown, in words."""
    table = difference_table(runs, method, baseline, shots, score)
    line, over = table.iloc[-1], "data sets" if len(table) > 1 else f"seeds of {table.index[0]}"
    text = f"{label(method)} − {label(baseline)}: {signed(line['mean'])} points"
    if pd.isna(line.p):
        return f"{text} ({line.n:.0f} {over}, no test)."
    interval = f"95 % t interval {signed(line.low)} to {signed(line.high)} over {line.n:.0f} {over}"
    return f"{text}, {verdict(line)} ({interval}, {_p(line.p)}; equal within ±{MARGIN:g}: {_p(line['p, equal'])})."


def verdict(line: pd.Series) -> str:
    """What a row of `difference_table` shows at the 5 % level: a difference, equality within `MARGIN`, both, or neither."""
    equal = f"equal within ±{MARGIN:g} point"
    if line.p < LEVEL:
        return f"a difference, but {equal}" if line["p, equal"] < LEVEL else "a difference"
    return equal if line["p, equal"] < LEVEL else "neither a difference nor equality is shown"


def signed(points: float, digits: int = 2) -> str:
    """Points with their sign; of negative ones the minus sign, not a hyphen."""
    return f"{points:+.{digits}f}".replace("-", "−")


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _tests(values: dict[str, pd.Series]) -> pd.DataFrame:
    return pd.DataFrame({name: t_tests(entries) for name, entries in values.items()}).T.astype({"n": int})


def t_tests(values: pd.Series) -> dict:
    line = {"n": len(values), "mean": values.mean()}
    if not values.sem() > 0:  # one value, or the same everywhere
        return line | dict.fromkeys(("low", "high", "p", "p, equal"), math.nan)
    test = stats.ttest_1samp(values, 0.0)
    low, high = test.confidence_interval(0.95)
    sides = [
        stats.ttest_1samp(values, bound, alternative=side).pvalue for bound, side in ((-MARGIN, "greater"), (MARGIN, "less"))
    ]
    return line | {"low": low, "high": high, "p": test.pvalue, "p, equal": max(sides)}
