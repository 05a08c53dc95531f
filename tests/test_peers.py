"""The tables of the field, against hand counts."""

import inspect

import pandas as pd
import pytest

from cbbt.catalogue import CATALOGUE
from cbbt.methods import METHODS
from cbbt.results.peers import access_table, improves, peers_table
from cbbt.results.statistics import peer_table

ACCURACY = {"zero_shot": [60, 60], "zip": [70, 72], "cbbt": [80, 84], "lfa": [58, 59]}  # seeds 1, 2 on data set "a"
RUNS = pd.DataFrame(
    {"dataset": dataset, "backbone": "mini", "method": method, "shots": 0 if method == "zero_shot" else 16, "seed": seed,
     "test_accuracy": accuracy + 2 * (dataset == "b"), "learned": 417, "loss_queries": 100 * seed, "class_prompts": 1000,
     "images": 20, "fit_seconds": 1.5, "peak_megabytes": 30.0}
    for dataset in "ab" for method, accuracies in ACCURACY.items() for seed, accuracy in enumerate(accuracies, 1)
)  # fmt: skip


def test_accuracy_and_price_stand_side_by_side():
    table = peers_table(RUNS, 16)
    assert list(table.index) == ["CBBT", "ZIP", "Zero-shot CLIP", "LFA"]
    assert table.loc["ZIP", "accuracy"] == 72 and table.loc["ZIP", "sd"] == pytest.approx(2**0.5)
    assert pd.isna(table.loc["Zero-shot CLIP", "sd"]) and table.loc["ZIP", "seeds"] == 2
    assert table.loc["ZIP", "loss queries"] == 150 and table.loc["ZIP", "access"] == CATALOGUE["zip"].access


def test_who_improves_on_zero_shot():
    assert improves(RUNS, "a", 16).to_dict() == {"CBBT": 22.0, "ZIP": 11.0, "LFA": -1.5}
    with pytest.raises(ValueError, match="no zero-shot run on 'a'; the table has cbbt, zip, lfa"):
        improves(RUNS[RUNS.method != "zero_shot"], "a", 16)


def test_every_method_says_what_it_needs():
    table = access_table(CATALOGUE)
    assert len(table) == len(CATALOGUE) and (table.needs.str.len() > 0).all() and (table.tunes.str.len() > 0).all()


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.settings])
def test_every_peer_says_what_it_changes_and_what_a_loss_query_scores(method):
    said = inspect.getmodule(METHODS[method].fit).__doc__
    assert "\nWhat a loss query scores: " in said
    assert "\nChanged: " in said or "this kit's own variant" in said


def test_holms_rule_multiplies_the_smallest_p_by_the_number_of_tests():
    better = (RUNS.method == "cbbt") & (RUNS.dataset == "b")
    table = peer_table(RUNS.assign(test_accuracy=RUNS.test_accuracy + better), "cbbt", 16)
    first, second = sorted(table.p)
    assert sorted(table["p, Holm"]) == pytest.approx([2 * first, max(2 * first, second)])
    assert (table["mean"] > 0).all()
