"""Numbers from the tables of gradients, with their uncertainty, for the text next to the figures.

Tables are those of `cbbt.gradients.analysis`, `cbbt.gradients.noise` and
`cbbt.runs.estimator_comparison`. A repeat is one batch with one draw of directions, the
same batch in every comparison, so that comparisons are within repeats.
"""

from __future__ import annotations

import math

import pandas as pd
from scipy import stats

from cbbt.results.statistics import holm, t_tests

CONFIDENCE = 0.95


def compared(table: pd.DataFrame, column: str, baseline: str, value: str = "cosine") -> pd.DataFrame:
    """Each value of `column` against `baseline`: means of `value`, and the difference within repeats.

    Columns: mean, ahead (mean difference), low, high (95 % t interval over repeats, not
    corrected), p (paired t-test), "p, Holm" (corrected for the number of lines). The highest mean comes first.
    """
    wide = table.pivot_table(index="repeat", columns=column, values=value)
    ahead = wide.drop(columns=baseline).sub(wide[baseline], axis=0)
    tests = pd.DataFrame({name: t_tests(differences) for name, differences in ahead.items()}).T
    lines = pd.DataFrame({"mean": wide.mean(), "ahead": ahead.mean()}).join(tests[["low", "high", "p"]])
    lines["p, Holm"] = holm(lines.p)
    return lines.sort_values("mean", ascending=False)


def median_interval(values: pd.Series) -> tuple[float, float, float]:
    """(median, low, high) of independent values of any distribution.

    The ends are order statistics, which contain the median with a probability of at least
    95 %, from six values on; of fewer they are the smallest and the largest.
    """
    ranked = values.sort_values().to_numpy()
    left_out = max(int(stats.binom.ppf((1 - CONFIDENCE) / 2, len(ranked), 0.5)) - 1, 0)  # at either end
    return float(values.median()), float(ranked[left_out]), float(ranked[-1 - left_out])


def shares(by_batch: pd.DataFrame, batch_size: int) -> pd.DataFrame:
    """The estimator's share of the squared error of a batch: a row per q; median over repeats, low, high."""
    rows = by_batch[by_batch.batch_size == batch_size]
    share = rows.estimator_error / (rows.estimator_error + rows.batch_error)
    return _medians(dict(iter(share.groupby(rows.q))))


def error_ratios(by_batch: pd.DataFrame, batch_size: int) -> pd.DataFrame:
    """The factor by which the squared error falls, for each q and `batch_size` images, with four times the directions (if
    the table has them) and with the largest batch: median over repeats of the ratio within a repeat, low, high.

    Medians, because squared errors of small batches have heavy tails. Index: (q, what is changed).
    """
    error = by_batch.pivot(index="repeat", columns=["batch_size", "q"], values="total_error")
    whole = by_batch.batch_size.max()
    ratios = {}
    for q in sorted(set(by_batch.q)):
        if (batch_size, 4 * q) in error:
            ratios[q, "four times the directions"] = error[batch_size, q] / error[batch_size, 4 * q]
        ratios[q, f"all {whole} images"] = error[batch_size, q] / error[whole, q]
    return _medians(ratios).rename_axis(["q", "instead"])


def training_table(trained: pd.DataFrame, images: int, baseline: str = "sphere") -> pd.DataFrame:
    """The last step's accuracy on a validation pool of `images`, in percent: a row per estimator, a column per seed.

    Further columns: mean, std (over seeds), ahead (mean difference from `baseline`) and
    "s.e. at most", the part of that difference's standard error that is due to the pool: that
    of two accuracies on independent images, an upper bound for the same images. It is not
    divided by the number of seeds, because they are scored on one pool.
    """
    last = trained[trained.step == trained.step.max()].pivot(index="estimator", columns="seed", values="validation_accuracy")
    last = last.loc[trained.estimator.unique()]
    mean = last.mean(axis=1)
    variance = mean / 100 * (1 - mean / 100) / images
    columns = {"mean": mean, "std": last.std(axis=1), "ahead": mean - mean[baseline]}
    return last.assign(**columns, **{"s.e. at most": 100 * (variance + variance[baseline]).map(math.sqrt)})


def _medians(groups: dict) -> pd.DataFrame:
    return pd.DataFrame({name: median_interval(values) for name, values in groups.items()}, index=["median", "low", "high"]).T
