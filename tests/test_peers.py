"""The tables of the field, against hand counts."""

import inspect
import itertools

import pandas as pd
import pytest
from matplotlib.text import Text

from cbbt.catalogue import CATALOGUE
from cbbt.methods import METHODS
from cbbt.results import peers
from cbbt.results.peers import BLOCKS, access_table, block, field_table, improves, peers_table, write_field_table
from cbbt.results.plots.diagram import method_cards
from cbbt.results.plots.peers import accuracy_against_price, frontier
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


def test_the_field_stands_in_blocks_by_access_and_shows_every_number_of_shots():
    fewer = RUNS[RUNS.method.isin(["lfa", "cbbt"])].assign(shots=1, test_accuracy=lambda runs: runs.test_accuracy - 10)
    white = RUNS[RUNS.method == "lfa"].assign(method="true_gradient", learned=None)
    table = field_table(pd.concat([RUNS, fewer[fewer.seed == 1], white]))
    assert list(table.index) == [
        ("white box", "True gradient (white box)"),
        ("features alone", "Zero-shot CLIP"),
        ("features alone", "LFA"),
        ("+ prompts' features or logits", "CBBT"),
        ("+ losses or pixels", "ZIP"),
    ]
    prices = ["loss queries", "class prompts", "images", "learned parameters", "seconds"]
    assert list(table) == ["1 shot", "16 shots", "seeds", *prices]
    zero, lfa, cbbt, zip_ = (table.xs(name, level="method").iloc[0] for name in ("Zero-shot CLIP", "LFA", "CBBT", "ZIP"))
    assert list(cbbt) == ["71.0 [1]", "83.0 ± 2.8", "2", "150", "1,000", "20", "417", "1.5"]
    assert (zero["1 shot"], zero["16 shots"]) == ("61.0", "61.0") and (lfa["1 shot"], zip_["1 shot"]) == ("49.0 [1]", "–")
    assert table.iloc[0]["learned parameters"] == "–"


def test_the_field_is_written_with_its_blocks(tmp_path):
    text = write_field_table(RUNS, tmp_path)
    assert text == (tmp_path / "field_table.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in text.splitlines()[2:6]]
    assert rows == [
        ["features alone", "Zero-shot CLIP", "61.0"],
        ["", "LFA", "59.5 ± 0.7"],
        ["+ prompts' features or logits", "CBBT", "**83.0 ± 2.8**"],
        ["+ losses or pixels", "ZIP", "72.0 ± 1.4"],
    ]
    latex = (tmp_path / "field_table.tex").read_text(encoding="utf-8")
    assert r"\textbf{83.0 $\pm$ 2.8}" in latex and latex.count(r"\midrule") == 3 and "cline" not in latex
    with pytest.raises(ValueError, match="no tuned method"):
        field_table(RUNS[RUNS.method == "zero_shot"])


def test_every_method_has_its_block():
    assert {block(method) for method in CATALOGUE} == set(BLOCKS) - {"not said"} and block("my_own") == "not said"
    assert block("word_search") == block("gda") == "features alone" and block("blackvip") == block("sharpzo")


def test_the_frontier_holds_what_nothing_beats_at_its_price():
    table = pd.DataFrame({"price": [1, 1, 5, 5, 9, None], "accuracy": [70, 72, 72, 80, 79, 99]}, index=list("abcdef"))
    assert list(frontier(table, "price").index) == ["b", "d"]


def test_names_on_the_figure_of_prices_cover_neither_each_other_nor_a_point():
    close = {"zero_shot": 60, "gda": 61.0, "kernel_ridge": 61.2, "lp_plus": 61.3, "tip_adapter_f": 61.4, "cbbt_plus": 61.5}
    runs = pd.concat(
        RUNS[RUNS.method == "cbbt"].assign(
            method=name, test_accuracy=value, class_prompts=price, learned=price, fit_seconds=price
        )
        for price, (name, value) in enumerate(close.items(), 1)
    )
    figure = accuracy_against_price(runs.assign(shots=runs.method.map({"zero_shot": 0}).fillna(16).astype(int)), 16)
    figure.draw_without_rendering()
    for ax in figure.axes[:3]:
        boxes = [Text.get_window_extent(text) for text in ax.texts]
        assert len(boxes) == len(close)
        points = [ax.transData.transform(line.get_xydata()[0]) for line in ax.lines if len(line.get_xydata()) == 1]
        assert len(points) == len(close)
        assert not any(box.contains(*point) for box in boxes for point in points)
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_who_improves_on_zero_shot():
    assert improves(RUNS, "a", 16).to_dict() == {"CBBT": 22.0, "ZIP": 11.0, "LFA": -1.5}
    with pytest.raises(ValueError, match="no zero-shot run on 'a'; the table has cbbt, zip, lfa"):
        improves(RUNS[RUNS.method != "zero_shot"], "a", 16)


def test_the_first_of_each_block_are_named_and_the_references_apart():
    """Means over both data sets, the second two points higher."""
    white = RUNS[RUNS.method == "lfa"].assign(method="true_gradient")
    runs = pd.concat([RUNS, white, RUNS[RUNS.method == "lfa"].assign(method="gda", test_accuracy=50.0)])
    assert peers.leaders_sentence(runs, 16) == (
        "*16 shots*, mean over tasks in percent, the first three that need features alone: LFA 59.5, GDA 50.0; "
        "+ prompts' features or logits: CBBT 83.0; + losses or pixels: ZIP 72.0."
    )
    assert "prompts alone: True gradient (white box) 59.5; the untouched box has 61.0 with" in peers.references_sentence(runs, 16)


def test_who_is_ahead_behind_or_equal_is_what_the_tests_show():
    columns = {"mean": [-2.0, 3.0, 0.1, 9.0], "p, Holm": [0.01, 0.04, 0.9, 0.06], "p, equal": [0.9, 0.9, 0.01, 0.9]}
    said = peers.comparison_sentence(pd.DataFrame(columns, index=["LFA", "ZIP", "GDA", "BBT"]), "cbbt", 4)
    assert said.startswith("*CBBT against each other method at 4 shots*")
    assert said.endswith("ahead of it: LFA; behind it: ZIP. Equal within a point (not corrected): GDA.")


def test_every_method_says_what_it_needs():
    table = access_table(CATALOGUE)
    assert len(table) == len(CATALOGUE) and (table != "").all(axis=None)
    assert list(table.loc["CraFT"]) == ["token embeddings", "logits", "projected context, head on logits"]
    assert list(table.loc["GDA", ["sends", "comes back"]]) == ["images, class names", "features"]


def test_the_cards_of_methods_say_what_the_table_says():
    figure = method_cards("craft", "gda", "zero_shot")
    texts = {text.get_text() for text in figure.findobj(Text)}
    assert {"CraFT", "token embeddings", "logits", "projected context, head on logits", "images, class names"} <= texts
    every = method_cards(*CATALOGUE)
    boxes = [text.get_window_extent() for text in every.axes[0].texts]
    assert all(every.bbox.x0 <= box.x0 and box.x1 <= every.bbox.x1 for box in boxes)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    with pytest.raises(ValueError, match="there is no method to draw"):
        method_cards()


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
