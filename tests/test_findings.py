"""The sentences below figures, against hand counts and the shipped tables."""

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from cbbt.results import findings
from cbbt.results.plots import gradients
from cbbt.results.tables import SPLIT, read_table

ROOT = Path(__file__).parent.parent
DATA = ROOT / "figures" / "data"
NUMBER = re.compile(r"\d[\d,]*\.\d+")
REACHED = dict(zip(SPLIT, (60.0, 61.0, 66.0, 70.0, 72.0)))  # on data set "a"; on "b" two points more
RUNS = pd.DataFrame(
    {"dataset": dataset, "backbone": "mini", "method": method, "shots": 0 if "zero" in method else 16, "seed": seed, "looks": 50,
     "test_accuracy": accuracy + 2 * (dataset == "b"), "test_accuracy_best_val": accuracy - 1, "class_prompts": 1000 * seed,
     "test_accuracy_official_selection": accuracy + 1.5}
    for dataset in "ab" for method, accuracy in REACHED.items() for seed in (1, 2)
)  # fmt: skip


def test_the_sentences_have_the_numbers_of_their_tables():
    assert findings.accuracy(RUNS, 16, "adapter") == (
        "At 16 shots, mean over data sets: CBBT 73.0 %, Adapter only 71.0 %, Zero-shot CLIP 61.0 %; "
        "the first is the highest of 5 methods."
    )
    assert findings.gain(RUNS, 16, "cbbt") == (
        "Of CBBT's +12.0 points over zero-shot, +1.0 are the wording's; "
        "above it a prompt alone adds +5.0, an adapter alone +9.0, both together +11.0."
    )
    assert findings.peers(RUNS, 16, "cbbt").endswith("the largest is +6.0 points over CBBT, prompt only.")
    assert findings.queries(RUNS, 16, "cbbt", "adapter") == "Class prompts encoded in one fit: CBBT 1,500; Adapter only 1,500."
    assert findings.selection(RUNS[RUNS.dataset == "a"], 16, "cbbt") == (
        "For CBBT the best of 50 epochs on the test split has +1.50 points over the last step, the best on validation −1.00."
    )


def test_the_sentence_of_the_curves_has_the_last_epoch():
    table = pd.DataFrame({"dataset": "a", "backbone": "mini", "method": ["cbbt", "cbbt", "adapter"], "shots": 16, "seed": 1})
    table = table.assign(epoch=[1, 2, 2], step=[5, 10, 10], test_accuracy=[50.0, 60.0, 70.0])
    assert findings.curves(table, "a", 16, "cbbt") == (
        "At the end of the curves on a: Adapter only 70.0 % after 10 steps; CBBT 60.0 % after 10 steps; "
        "the first is the highest of 2."
    )


def test_differences_that_are_listed_together_are_corrected_for_their_number():
    noise = {"a": 0.0, "b": 0.1, "c": -0.1, "d": 0.05}
    rows = [
        {"dataset": name, "backbone": "mini", "method": method, "shots": 1, "seed": 1, "test_accuracy": points}
        for name, off in noise.items()
        for method, points in (("cbbt", 70.0), ("adapter", 60 + off), ("lfa", 70 + 20 * off))
    ]
    first, second, shown = findings.difference_sentences(pd.DataFrame(rows), [("cbbt", name, 1) for name in ("adapter", "lfa")])
    assert first.startswith("1 shot. CBBT − Adapter only: +9.99 points, a difference") and "neither" in second
    assert shown == "Corrected for these 2 comparisons (Holm 1979), 1 of them show a difference."


def test_what_a_table_cannot_say_is_left_out():
    assert findings.gain(RUNS[RUNS.method.isin(["zero_shot", "cbbt"])], 16, "cbbt") == "CBBT gains +12.0 points over zero-shot."
    assert findings.selection(RUNS.drop(columns="test_accuracy_best_val"), 16, "cbbt") == ""
    assert findings.queries(RUNS[RUNS.method == "zero_shot"], 16, "cbbt", "adapter") == ""


@pytest.mark.parametrize("name", gradients.FIGURES)
def test_every_figure_of_gradients_has_a_sentence(name):
    said = findings.GRADIENTS[name](read_table(DATA / f"{name}.csv"))
    assert said.endswith(".") and any(letter.isdigit() for letter in said) and "nan" not in said


def test_the_cosine_is_that_of_the_shipped_table():
    table = read_table(DATA / "gradient_cosine.csv")
    rows = table[(table.family == "sphere") & (table.q == table[table.family == "sphere"].q.max())]
    assert f"to {rows.cosine.mean():.2f} at q = {rows.q.iloc[0]}" in findings.GRADIENTS["gradient_cosine"](table)


@pytest.mark.parametrize("name", ["00_in_a_minute", "04_figures", "05_peers", "07_generalisation"])
def test_what_a_notebook_found_it_has_printed(name):
    """Numbers with a decimal point, above the exercises."""
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    texts = [output.get("text", "") for output in outputs]
    texts += [output.get("data", {}).get(kind, "") for output in outputs for kind in ("text/plain", "text/html", "text/markdown")]
    found = set(NUMBER.findall(cells[-1].source.split("**Try it**")[0]))
    assert found and found - set(NUMBER.findall("\n".join(texts))) == set()
