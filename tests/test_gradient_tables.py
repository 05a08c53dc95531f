"""Numbers for the prose beside the figures of gradients, against hand counts."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cbbt.results.gradients import compared, error_ratios, median_interval, shares, training_table


def test_a_difference_is_taken_within_repeats():
    cosines = {"sphere": [0.1, 0.5, 0.9], "guided": [0.3, 0.6, 1.0], "spsa": [0.1, 0.4, 0.9]}
    table = pd.DataFrame([(name, repeat, value) for name, values in cosines.items() for repeat, value in enumerate(values)])
    lines = compared(table.set_axis(["family", "repeat", "cosine"], axis=1), "family", "sphere")
    assert list(lines.index) == ["guided", "sphere", "spsa"]
    assert lines.ahead.drop("sphere").to_dict() == pytest.approx({"guided": 0.4 / 3, "spsa": -0.1 / 3})
    half = stats.t.ppf(0.975, 2) * np.std([0.2, 0.1, 0.1], ddof=1) / 3**0.5
    assert lines.loc["guided", ["low", "high"]].tolist() == pytest.approx([0.4 / 3 - half, 0.4 / 3 + half])
    p = stats.ttest_rel(cosines["guided"], cosines["sphere"]).pvalue
    assert lines["p, Holm"]["guided"] == pytest.approx(2 * p) and np.isnan(lines.ahead["sphere"])


@pytest.mark.parametrize("n, left_out", [(2, 0), (8, 0), (9, 1), (32, 9)])
def test_the_interval_of_a_median_holds_it_often_enough(n, left_out):
    values = pd.Series(np.random.default_rng(1).permutation(n))
    assert median_interval(values) == ((n - 1) / 2, left_out, n - 1 - left_out)
    missed = 2 * stats.binom.cdf(left_out, n, 0.5)
    assert n < 6 or missed <= 0.05 < 2 * stats.binom.cdf(left_out + 1, n, 0.5)


def test_errors_are_divided_within_repeats_and_one_tail_changes_little():
    tail = [1, 1, 1, 1, 1e6]
    rows = [
        {"batch_size": size, "q": q, "repeat": repeat, "batch_error": 1.0, "estimator_error": 128 / q * tail[repeat]}
        for size in (32, 160) for q in (16, 64) for repeat in range(5)
    ]  # fmt: skip
    table = pd.DataFrame(rows).assign(total_error=lambda t: (t.batch_error + t.estimator_error) * (160 / t.batch_size))
    ratios = error_ratios(table, 32)
    assert list(ratios.index) == [(16, "four times the directions"), (16, "all 160 images"), (64, "all 160 images")]
    assert ratios["median"].tolist() == pytest.approx([9 / 3, 5, 5])
    assert shares(table, 32)["median"].to_dict() == pytest.approx({16: 8 / 9, 64: 2 / 3})


def test_a_pool_leaves_a_standard_error_whatever_the_number_of_seeds():
    accuracies = {"sphere": (70, 74), "orthogonal": (80, 80)}
    rows = [
        {"estimator": name, "seed": seed, "step": step, "validation_accuracy": value if step == 9 else 0}
        for name, values in accuracies.items() for seed, value in enumerate(values, 1) for step in (1, 9)
    ]  # fmt: skip
    table = training_table(pd.DataFrame(rows), images=200)
    assert table.loc["orthogonal", ["mean", "std", "ahead"]].tolist() == pytest.approx([80, 0, 8])
    assert table["s.e. at most"]["orthogonal"] == pytest.approx(100 * ((0.8 * 0.2 + 0.72 * 0.28) / 200) ** 0.5)
