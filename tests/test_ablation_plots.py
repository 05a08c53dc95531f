"""One factor at a time: which runs are compared, what a value changes, what is drawn."""

import warnings

import numpy as np
import pandas as pd
import pytest

from cbbt.results.plots.ablation import ablations, by_factor, changes
from cbbt.results.plots.style import COLUMN, save_figure

from .test_plots import clipped_texts, overlapping_texts

EPSILON = 1 / 128
POINT = {"q": 64, "context_length": 1, "epsilon": np.nan, "adapter_ratio": 0.2, "fresh_text": False}
VARIED = [{}, {"q": 1}, {"q": 16}, {"context_length": 4}, {"epsilon": 0.1}, {"epsilon": 1e-4}]


def table(datasets=("digits", "shapes"), seeds=(1, 2, 3)):
    """Runs whose accuracy is 80, 90 with an adapter, a point less with q = 1, and a hundredth of the seed."""
    rows = [
        {"dataset": dataset, "backbone": "mini", "method": method, "shots": 16, "seed": seed} | POINT | change
        | {"test_accuracy": 80 + 10 * (method == "cbbt") - (change.get("q") == 1) * (1 + 0.1 * seed) + 0.01 * seed}
        for method in ("cbbt", "cbbt_prompt", "cbbt_tip")
        for change in ([{}] if method == "cbbt_tip" else VARIED + [{"adapter_ratio": 0.5}] * (method == "cbbt"))
        for dataset in datasets for seed in seeds
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_each_factor_has_the_runs_that_differ_in_it_alone():
    found = by_factor(table(), EPSILON)
    values = found.groupby(["factor", "method"]).value.agg(lambda column: sorted(set(column))).to_dict()
    assert values == {
        ("q", "cbbt"): [1, 16, 64], ("q", "cbbt_prompt"): [1, 16, 64],
        ("context_length", "cbbt"): [1, 4], ("context_length", "cbbt_prompt"): [1, 4],
        ("epsilon", "cbbt"): [1e-4, EPSILON, 0.1], ("epsilon", "cbbt_prompt"): [1e-4, EPSILON, 0.1],
        ("adapter_ratio", "cbbt"): [0.2, 0.5],
        ("adapter", "cbbt"): ["residual"], ("adapter", "cbbt_prompt"): ["none"], ("adapter", "cbbt_tip"): ["cache"],
    }  # fmt: skip
    assert found[found.default].value.unique().tolist() == [64, 1, EPSILON, 0.2, "residual"]


def test_changes_are_paired_with_the_default():
    found = changes(by_factor(table(), EPSILON))
    assert found["mean"]["cbbt_prompt", "q", 1] == pytest.approx(-1.2)  # the mean of 1.1, 1.2, 1.3
    assert found.n["cbbt_prompt", "q", 1] == 2  # data sets, each the mean over its seeds
    assert found["mean"]["cbbt", "adapter", "none"] == pytest.approx(-10)
    assert ("cbbt", "q", 64) not in found.index


@pytest.mark.parametrize("shape", [{}, {"seeds": (1,)}, {"datasets": ("digits",)}])
def test_the_figure_has_a_panel_per_method_and_a_row_per_value(shape):
    found = by_factor(table(**shape), EPSILON)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = ablations(found)
        figure.draw_without_rendering()
    rows = [[text.get_text() for text in ax.get_yticklabels()] for ax in figure.axes]
    both = ["q 64 → 1", "q 64 → 16", "M 1 → 4", "ε 0.0078 → 0.0001", "ε 0.0078 → 0.1"]
    assert rows == [both + ["r 0.2 → 0.5", "adapter residual → cache", "adapter residual → none"], both]
    assert figure.get_figwidth() == COLUMN and overlapping_texts(figure) == [] and clipped_texts(figure) == []


def test_the_figure_drawn_again_is_the_same_file(tmp_path):
    found = by_factor(table(datasets=("digits",)), EPSILON)
    first, _ = save_figure(ablations(found), "ablations", tmp_path / "first")
    second, _ = save_figure(ablations(found), "ablations", tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()


def test_a_table_of_other_runs_is_refused():
    with pytest.raises(ValueError, match="the table lacks adapter_ratio"):
        by_factor(table().drop(columns="adapter_ratio"), EPSILON)
    with pytest.raises(ValueError, match="two rows of"):
        by_factor(pd.concat([table(), table()]), EPSILON)
