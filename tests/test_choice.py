"""Settings are chosen on validation, for each task by the other tasks alone."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from matplotlib.colors import to_hex

from cbbt.methods import DEFAULTS, METHODS
from cbbt.results.choice import candidates, leave_one_out, left_out_accuracy
from cbbt.results.estimators import PARTS, TRUE, directions_table, estimator_sentences, estimator_table, rate_table
from cbbt.results.plots.rates import accuracy_against_rate, accuracy_by_directions
from cbbt.results.tables import write_table
from cbbt.runs import choice
from cbbt.runs.grid import Grid

ROOT = Path(__file__).parent.parent
RATES = {"low": 0.01, "high": 0.1}


def runs(**columns):
    """Accuracies by data set and rate: 'high' is best on all data sets but `a`, and best of all only thanks to `c`."""
    reached = {"a": (90.0, 10.0), "b": (50.0, 60.0), "c": (50.0, 95.0)}
    rows = [
        {"dataset": name, "backbone": "mini", "method": "adapter", "shots": 4, "seed": seed, "rate": rate, "judge": "validation"}
        | {"validation_accuracy": accuracy + seed}
        for name, pair in reached.items()
        for rate, accuracy in zip(RATES.values(), pair)
        for seed in (1, 2)
    ]
    return pd.DataFrame(rows).assign(**columns)


def test_candidates_are_means_over_seeds():
    table = candidates(runs(), ["rate"], "adapter", 4)
    assert table.loc[0.01].to_dict() == {"a": 91.5, "b": 51.5, "c": 51.5} and list(table.columns) == ["a", "b", "c"]


def test_a_task_has_no_say_in_its_own_choice():
    table = candidates(runs(), ["rate"], "adapter", 4)
    # without a: high (77.5 > 50); without b: low (70 > 52.5); without c: low (70 > 35)
    assert leave_one_out(table).to_dict() == {"a": 0.1, "b": 0.01, "c": 0.01}
    assert left_out_accuracy(table).to_dict() == {"a": 11.5, "b": 51.5, "c": 51.5}
    other = table.assign(a=[0.0, 100.0])  # whatever a's own labels say, a's choice stays
    assert leave_one_out(other)["a"] == leave_one_out(table)["a"]


def test_what_cannot_be_chosen_from_is_refused():
    with pytest.raises(ValueError, match="settings are chosen on validation"):
        candidates(runs(judge="test"), ["rate"], "adapter", 4)
    with pytest.raises(ValueError, match="no run of 'cbbt' with shots=4, choose from adapter 4"):
        candidates(runs(), ["rate"], "cbbt", 4)
    with pytest.raises(ValueError, match="mixes backbones"):
        candidates(pd.concat([runs(), runs(backbone="RN50")]), ["rate"], "adapter", 4)
    with pytest.raises(ValueError, match="needs at least two data sets, got a"):
        leave_one_out(candidates(runs(), ["rate"], "adapter", 4)[["a"]])


def grid(folder, **changes) -> dict:
    return {
        "datasets": ["digits", "landcover", "shapes"], "methods": ["adapter"], "shots": [4], "seeds": [1],
        "results": str(folder), "tables": str(folder), "figures": str(folder), "settings": {"judge": "validation"},
        "variants": {"low": {"adapter_lr": 0.01}, "high": {"adapter_lr": 0.1}},
    } | changes  # fmt: skip


def write_runs(values: dict, reached: dict):
    made = Grid.from_dict(values)
    rows = [
        {"run_id": config.run_id, "validation_accuracy": reached[cell.dataset][list(made.variants).index(cell.variant)]}
        for cell in made.cells()
        for config in made.configs(cell)
    ]
    write_table(pd.DataFrame(rows), f"{values['tables']}/runs.csv")
    return made


def test_rules_give_each_task_what_the_others_chose_and_new_tasks_the_choice_of_all(tmp_path):
    values = grid(tmp_path)
    made = write_runs(values, {"digits": (90, 10), "landcover": (50, 60), "shapes": (50, 95)})
    rules = choice.chosen_rules(made)
    assert rules == [
        {"for": {"method": "adapter", "shots": 4}, "set": {"adapter_lr": 0.01}},
        {"for": {"method": "adapter", "shots": 4, "dataset": ["digits"]}, "set": {"adapter_lr": 0.1}},
    ]
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "chosen.yaml").write_text(choice.main(str(tmp_path / "grid.yaml")))
    test = grid(tmp_path, settings={}, variants={"default": {}}, chosen=str(tmp_path / "chosen.yaml"))
    made = Grid.from_dict(test)
    used = {config.dataset: config.adapter_lr for cell in made.cells() for config in made.configs(cell)}
    assert used == {"digits": 0.1, "landcover": 0.01, "shapes": 0.01}


def test_a_search_that_is_judged_on_test_or_incomplete_or_uneven_is_refused(tmp_path):
    with pytest.raises(ValueError, match="settings are chosen on validation: .* is judged on test"):
        made = Grid.from_dict(grid(tmp_path, settings={}))
        write_table(pd.DataFrame([{"run_id": "none", "validation_accuracy": 1.0}]), tmp_path / "runs.csv")
        choice.chosen_rules(made)
    with pytest.raises(ValueError, match="lacks digits-mini-adapter"):
        choice.chosen_rules(Grid.from_dict(grid(tmp_path)))
    uneven = grid(tmp_path, variants={"low": {"adapter_lr": 0.01}, "high": {"adapter_lr": 0.1, "epochs": 9}})
    made = write_runs(uneven, {"digits": (90, 10), "landcover": (50, 60), "shapes": (50, 95)})
    with pytest.raises(ValueError, match="candidates of adapter must all set the same fields"):
        choice.chosen_rules(made)


@pytest.mark.parametrize(
    "name, grids",
    [
        ("chosen", ["search", "search_plus"]),
        ("chosen_field", ["search", "search_features", "search_plus"]),
        (
            "chosen_peers",
            ["search", "search_peers", "search_features", "search_sharpzo", "search_plus", "--serve", "16=1,4,16", "4=1,4"],
        ),
        (
            "chosen_photos",
            ["search_photos", "search_photos_queries", "search_photos_features", "search_photos_plus"]
            + ["--serve", "16=1,2,4,8,16", "2=1,2,4"],
        ),
    ],
)
def test_the_shipped_choice_is_that_of_the_shipped_tables(name, grids, monkeypatch):
    monkeypatch.chdir(ROOT)
    paths = [f"configs/{grid}.yaml" if grid.startswith("search") else grid for grid in grids]
    assert Path(f"configs/{name}.yaml").read_text() == choice.main(*paths)


def test_methods_have_six_candidates_each(monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in ("search", "search_peers", "search_features", "search_photos_features"):
        made = Grid.from_file(f"configs/{name}.yaml")
        for method in made.methods:
            assert sum(method in settings["methods"] for settings in made.variants.values()) == 6, method


def test_default_rates_are_the_choice_over_all_tasks_with_16_shots(monkeypatch):
    monkeypatch.chdir(ROOT)
    shared = ("prompt_lr", "adapter_ratio", "adapter_lr")  # other settings have the published constants as defaults
    for selected, settings in Grid.from_file("configs/default.yaml").all_rules:
        if selected["shots"] == [16] and "dataset" not in selected:
            defaults = DEFAULTS | METHODS[selected["method"][0]].defaults
            assert {name: defaults[name] for name in shared if name in settings} == {
                name: value for name, value in settings.items() if name in shared
            }, selected


def estimators() -> pd.DataFrame:
    """q = 64 is a point better than q = 4 at the rate 0.1 on every data set; at 0.01 both reach 70."""
    rows = [
        {"dataset": name, "backbone": "mini", "method": method, "shots": 16, "seed": 1, "judge": "validation", "q": q}
        | {"directions": "sphere", "scoring": "batch", "prompt_every": 1, "prompt_lr": rate, "class_prompts": 10.0 * q}
        | {"validation_accuracy": 70.0 + (rate == 0.1) * (2.0 + (q == 64) + number / 10)}
        for number, name in enumerate(("a", "b", "c"))
        for method, q in (("true_gradient", 64), ("cbbt_prompt", 64), ("cbbt_prompt", 4))
        for rate in (0.01, 0.1)
    ]
    return pd.DataFrame(rows)


def test_estimators_are_compared_at_the_rate_that_others_chose():
    table = estimator_table(estimators(), 16, "q = 64")
    assert list(table.index) == ["true gradient", "q = 64", "q = 4"]
    assert table.accuracy["q = 64"] == pytest.approx(73.1) and table["mean"]["q = 4"] == pytest.approx(-1.0)
    assert table["at the edge"].tolist() == [3, 3, 3] and table["class prompts"]["q = 4"] == 40
    assert len(rate_table(estimators())) == 6


def test_the_sentences_of_estimates_have_the_numbers_of_their_table():
    accuracy = {TRUE: 80.0, "q = 64": 79.0, "q = 16": 78.5, "q = 4": 78.0, "q = 1": 70.0} | dict(zip(PARTS, (75, 76, 77.5, 77)))
    table = pd.DataFrame({"accuracy": accuracy, "class prompts": 100.0}).assign(mean=lambda table: table.accuracy - 79)
    table.loc[["q = 64", "q = 16"], "class prompts"] = 2600.0, 680.0
    reached, parts, saved = estimator_sentences(table, 16)
    assert "16 shots the true gradient reaches 80.0 %, and q = 64, 16, 4 and 1 reach 79.0, 78.5, 78.0, 70.0:" in reached
    assert "changes +1.0 points, orthonormal directions +1.5 more, reusing the last estimate -0.5 more." in parts
    assert "q = 16 sends one in 4 (-0.5 points), q = 4 sends one in 26" in saved
    assert saved.endswith("CBBT on the support one in 26 (-1.5 points).")


def test_the_figure_of_rates_has_a_line_for_each_estimator():
    every_third = estimators().query("method == 'cbbt_prompt' and q == 4").assign(prompt_every=3, scoring="support")
    figure = accuracy_against_rate(rate_table(pd.concat([estimators(), every_third])))
    left, right = figure.axes
    assert [len(ax.get_legend().get_texts()) for ax in (left, right)] == [
        3,
        2,
    ] and left.get_title() == "every step, batches, 16 shots"
    drawn = [line.get_color() for ax in (left, right) for line in ax.lines]
    assert len(set(map(to_hex, drawn))) == 4  # the true gradient stands in both


def test_directions_are_compared_where_the_whole_budget_is_spent():
    rows = [
        {"dataset": dataset, "method": "cbbt_prompt", "shots": 16, "q": q, "prompt_lr": rate, "max_loss_queries": 1000}
        | {"loss_queries": 1000 if q > 4 else 500, "validation_accuracy": 50 + q + 10 * (dataset == "b") - 100 * rate}
        for dataset in "ab" for q in (4, 9, 19) for rate in (0.01, 0.04)
    ]  # fmt: skip
    table = directions_table(pd.DataFrame(rows), "cbbt_prompt")
    assert sorted(set(table.q)) == [9, 19] and len(table) == 4  # q = 4 left half of its budget; the better rate stands
    assert table[table.q == 9].ahead.tolist() == [-5.0, -5.0] and table.accuracy.max() == 78.0
    (ax,) = accuracy_by_directions(table, "cbbt_prompt").axes
    assert [text.get_text() for text in ax.get_xticklabels()] == ["9", "19"]
    with pytest.raises(ValueError, match="no run of 'cbbt' spends its budget"):
        directions_table(pd.DataFrame(rows), "cbbt")
