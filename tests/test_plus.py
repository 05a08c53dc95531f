"""CBBT+ by its parts and its prompt sets: which runs are compared, what is said of them, what is drawn."""

import json
import warnings

import pandas as pd
import pytest

from cbbt.results.plots.plus import accuracy_by_prompt_sets, part_differences
from cbbt.results.plots.style import PAGE
from cbbt.results.plus import (
    MEMORY,
    PROMPT,
    WHOLE,
    accuracy_by_sets,
    part_left_out,
    part_sentences,
    part_table,
    reach_sentences,
    reach_table,
    sets_to_reach,
    with_parts,
)

from .test_plots import overlapping_texts

OPTIONS = {"steps": 12, "memory": 64, "experts": ["kernel", "adapter", "map", "gda"], "prompt_weight": 0.5}
VARIANTS = {  # what a run lacks → its options and the points that this costs
    WHOLE: ({}, 0.0),
    PROMPT: ({"prompt_weight": 0.0, "steps": 0}, 2.0),
    "gda": ({"experts": ["kernel", "adapter", "map"]}, -0.5),
}
TASKS = {"digits": 90.0, "landcover": 85.0, "shapes": 80.0}


def runs(shots=(1, 16), seeds=(1, 2)):
    """Accuracies of a task, less what the lack of a part costs there: one, two and three times its points."""
    rows = [
        {"dataset": dataset, "backbone": "mini", "method": "cbbt_plus", "shots": count, "seed": seed}
        | {"options": json.dumps(OPTIONS | change), "test_accuracy": accuracy - number * cost + 0.1 * seed}
        for count in shots
        for number, (dataset, accuracy) in enumerate(TASKS.items(), 1)
        for change, cost in VARIANTS.values()
        for seed in seeds
    ]
    prompt = [
        {"dataset": dataset, "backbone": "mini", "method": "cbbt_plus_prompt", "shots": count, "seed": seed}
        | {"options": json.dumps(OPTIONS | {"experts": [], "memory": memory}), "test_accuracy": accuracy - 5 - 3 * (memory == 16)}
        for count in shots
        for dataset, accuracy in TASKS.items()
        for memory in (64, 16)
        for seed in seeds
    ]
    return pd.DataFrame(rows + prompt).assign(run_id=lambda table: table.index.map(str))


def curves():
    """Two methods of which one asks ten times as much for the same accuracies, and has a task that ends early."""
    rows = [
        {"dataset": dataset, "backbone": "mini", "method": method, "shots": shots, "seed": seed, "epoch": epoch}
        | {"loss_queries": epoch * price, "test_accuracy": 60.0 + 10 * epoch + seed}
        for method, price in (("cbbt_plus_prompt", 20), ("cbbt_prompt", 200))
        for shots in (1, 16)
        for dataset, epochs in (("digits", 3), ("shapes", 2))
        for seed in (1, 2)
        for epoch in range(1, epochs + 1)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("part", VARIANTS)
def test_a_run_lacks_what_its_options_say(part):
    assert part_left_out(OPTIONS, OPTIONS | VARIANTS[part][0]) == part


def test_other_differences_are_no_part():
    assert part_left_out(OPTIONS, OPTIONS | {"memory": 16}) == MEMORY
    assert part_left_out(OPTIONS, OPTIONS | {"experts": ["kernel", "gda"]}) is None
    assert part_left_out(OPTIONS | {"experts": ["kernel", "gda"]}, OPTIONS | {"experts": ["adapter", "map", "gda"]}) is None
    assert part_left_out(OPTIONS, OPTIONS | {"steps": 0}) is None


def test_parts_are_paired_with_the_whole_over_data_sets():
    table = part_table(with_parts(runs()))
    assert table["mean"][16, PROMPT] == pytest.approx(4.0) and table["mean"][1, "gda"] == pytest.approx(-1.0)
    assert table["mean"][1, MEMORY] == pytest.approx(3.0)
    assert set(table.n) == {3} and (table["p, Holm"].dropna() >= table.p.dropna()).all()


def test_a_variant_that_is_the_whole_or_no_part_of_it_is_left_out():
    first = runs()
    again = pd.concat([first, first[:2]])
    assert len(with_parts(again)) == len(first)
    small = json.dumps(OPTIONS | {"experts": ["kernel", "gda"]})
    chosen = first.assign(
        options=first.options.where(~((first.dataset == "shapes") & (first.options == json.dumps(OPTIONS))), small)
    )
    table = part_table(with_parts(chosen))
    assert table.n[16, "gda"] == 2  # of the third, three experts are no part of the whole's two
    assert PROMPT in table.loc[16].index


def test_two_runs_that_lack_the_same_are_refused():
    first = runs()
    with pytest.raises(ValueError, match="two rows of"):
        with_parts(pd.concat([first, first.assign(run_id=first.run_id + "b")]))


def test_a_prompt_is_followed_over_what_it_asked_and_stays_where_it_ended():
    table = accuracy_by_sets(curves(), 16)
    own = table[(table.method == "cbbt_plus_prompt") & (table.seed == 1)].set_index("prompt_sets").accuracy
    assert own.to_dict() == {20: 71.0, 40: 81.0, 60: 86.0}  # the other task ended with 81
    assert sets_to_reach(table, "cbbt_plus_prompt", 81.5) == 40
    assert sets_to_reach(table, "cbbt_prompt", 81.5) == 400
    assert pd.isna(sets_to_reach(table, "cbbt_prompt", 90))
    reached = reach_table(curves(), "cbbt_plus_prompt", near=6.0).loc[16, "cbbt_prompt"]
    assert reached["accuracy"] == 86.5 and reached["prompt sets"] == 500
    assert reached["reached after"] == 60 and reached["near after"] == 40 and reached["one in, near"] == 12.5


def test_sentences_say_when_an_accuracy_is_reached_and_when_never():
    columns = {"accuracy": [86.5, 90.0], "prompt sets": [500.0, 7.0], "reached after": [60.0, None], "near after": [40.0, 50.0]}
    index = pd.MultiIndex.from_tuples([(16, "cbbt_prompt"), (16, "true_gradient")], names=["shots", "method"])
    first, second = reach_sentences(pd.DataFrame(columns, index=index), "cbbt_plus_prompt")
    assert first == (
        "16 shots. *CBBT, prompt only* ends at 86.5 %; *CBBT+, prompt only* reaches that after 60 prompt sets, one in 8, "
        "comes within half a point after 40 prompt sets, one in 12 of CBBT's 500."
    )
    assert "never reaches that, comes within half a point after 50 prompt sets, one in 10 of CBBT's 500." in second


def test_sentences_name_the_parts_that_are_shown():
    rows = [(2.0, 1.0, 3.0, 0.9, 0.01), (0.1, -0.1, 0.3, 0.02, 1.0)]
    index = pd.MultiIndex.from_tuples([(1, "prompt"), (16, "gda")], names=["shots", "part"])
    table = pd.DataFrame(rows, columns=["mean", "low", "high", "p, equal", "p, Holm"], index=index)
    few, many, shown = part_sentences(table)
    assert few.startswith("1 shot. ") and few.endswith("over tasks: prompt +2.00 (+1.00 to +3.00).")
    assert many.startswith("16 shots. ") and many.endswith("gda +0.10 (-0.10 to +0.30).")
    assert shown == (
        "Of these 2 differences shown after Holm's correction: prompt at 1; equal within ±1 point, not corrected: gda at 16."
    )


@pytest.mark.parametrize("figure", [lambda: accuracy_by_prompt_sets(curves()), lambda: part_differences(with_parts(runs()))])
def test_figures_have_a_panel_for_each_number_of_shots(figure):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = figure()
        drawn.draw_without_rendering()
    assert len(drawn.axes) == 2 and drawn.get_figwidth() == PAGE
    assert overlapping_texts(drawn) == []
