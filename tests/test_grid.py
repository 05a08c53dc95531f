"""A grid is checked in full before anything starts."""

from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml

from cbbt.data.task import DataError
from cbbt.results.tables import read_table
from cbbt.runs.config import method_configs
from cbbt.runs.grid import Cell, Grid

ROOT = Path(__file__).parent.parent
CONFIGS = {path: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "configs").glob("*.yaml"))}
GRIDS = [path for path, content in CONFIGS.items() if isinstance(content, dict)]  # the others are lists of chosen settings
GOOD = {
    "datasets": ["digits", "shapes"],
    "methods": ["zero_shot", "cbbt"],
    "shots": [1, 4],
    "seeds": [1, 2],
    "results": "r",
    "tables": "t",
    "figures": "f",
    "settings": {"q": 8},
    "rules": [{"for": {"dataset": "shapes"}, "set": {"epochs": 7, "q": 9}}, {"for": {"method": "cbbt"}, "set": {"epochs": 3}}],
}


def rule(**selected) -> dict:
    """A rule for what is selected, which sets q = 33."""
    return {"for": selected, "set": {"q": 33}}


def with_rules(*rules, **change) -> Grid:
    return Grid.from_dict(GOOD | {"rules": list(rules)} | change)


def configs(grid: Grid) -> list:
    return [(cell, config) for cell in grid.cells() for config in grid.configs(cell)]


def write_chosen(folder: Path, content) -> str:
    path = folder / "chosen.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.name)
def test_shipped_grids_are_valid(path):
    grid = Grid.from_dict(yaml.safe_load(path.read_text()))
    runs = [config.run_id for cell in grid.cells() for config in grid.configs(cell)]
    assert len(set(runs)) == len(runs)


def test_cells_and_settings():
    grid = Grid.from_dict(GOOD)
    assert [cell.name for cell in grid.cells()] == [
        "digits.4shot.default",
        "shapes.4shot.default",
        "digits.cbbt.1shot.default",
        "shapes.cbbt.1shot.default",
    ]
    first, second = grid.configs(Cell("shapes", ("cbbt",), 4, "default"))
    assert (first.seed, second.seed, first.shots, first.q, first.epochs) == (1, 2, 4, 9, 3)
    shots = {(config.method, config.shots) for cell in grid.cells() for config in grid.configs(cell)}
    assert shots == {("cbbt", 4), ("cbbt", 1), ("zero_shot", 0)}


def test_grouping_changes_no_run():
    def runs(grid):
        return {config.run_id for cell in grid.cells() for config in grid.configs(cell)}

    per_method = Grid.from_dict(GOOD | {"notebook_per": "method", "methods": ["zero_shot", "cbbt", "true_gradient"]})
    per_shots = Grid.from_dict(GOOD | {"methods": ["zero_shot", "cbbt", "true_gradient"]})
    assert runs(per_method) == runs(per_shots)
    assert "digits.cbbt.4shot.default" in [cell.name for cell in per_method.cells()]


def test_variants_are_an_axis_that_wins():
    grid = Grid.from_dict(GOOD | {"variants": {"few": {"q": 3}, "many": {"q": 99}}})
    assert {config.q for cell in grid.cells() for config in grid.configs(cell)} == {3, 99}
    assert len(grid.cells()) == 8


# ---- rules ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "selected, of_a_run",
    [
        ({}, lambda cell, config: True),
        ({"dataset": "shapes"}, lambda cell, config: config.dataset == "shapes"),
        ({"method": "cbbt"}, lambda cell, config: config.method == "cbbt"),
        ({"method": ["adapter", "zero_shot"]}, lambda cell, config: config.method != "cbbt"),
        ({"shots": 1}, lambda cell, config: config.shots == 1),
        ({"shots": [4]}, lambda cell, config: config.shots == 4),
        ({"shots": 0}, lambda cell, config: config.method == "zero_shot"),
        ({"shots": [0, 1, 4]}, lambda cell, config: True),
        ({"variant": "b"}, lambda cell, config: cell.variant == "b"),
        (
            {"dataset": ["digits"], "method": "cbbt", "shots": [0, 4], "variant": ["a"]},
            lambda cell, config: (config.dataset, config.method, config.shots, cell.variant) == ("digits", "cbbt", 4, "a"),
        ),
    ],
)
@pytest.mark.parametrize("notebook_per", ["shots", "method"])
def test_a_rule_is_for_what_it_selects(selected, of_a_run, notebook_per):
    """By each axis and by several at once; the shots of zero-shot are 0, in whichever cell it stands."""
    grid = with_rules(
        rule(**selected), methods=["zero_shot", "adapter", "cbbt"], variants={"a": {}, "b": {}}, notebook_per=notebook_per
    )
    wanted = {(cell, config.run_id): 33 if of_a_run(cell, config) else 8 for cell, config in configs(grid)}
    assert {(cell, config.run_id): config.q for cell, config in configs(grid)} == wanted
    assert len({q for q in wanted.values()}) == (1 if all(of_a_run(*each) for each in configs(grid)) else 2)


def test_later_settings_win_over_earlier_ones(tmp_path):
    """Settings, then what was chosen, then the grid's rules in their order, then the variant; each is for what it names."""
    chosen = write_chosen(tmp_path, [
        {"for": {"method": "cbbt"}, "set": {"q": 2, "epochs": 2, "views": 2, "batch_size": 2}},
        {"for": {"method": "cbbt", "shots": 4}, "set": {"batch_size": 3}},
    ])  # fmt: skip
    rules = [
        {"for": {"method": "cbbt"}, "set": {"q": 4, "epochs": 4}},
        {"for": {"dataset": "digits"}, "set": {"epochs": 5, "views": 5}},
    ]
    plain = {"q": 1, "epochs": 1, "views": 1, "batch_size": 1, "clip_norm": 1.0}
    grid = with_rules(*rules, settings=plain, chosen=chosen, variants={"few": {"q": 6}})

    def of(dataset, method, shots):
        (cell,) = [each for each in grid.cells() if each.dataset == dataset and each.shots == shots and method in each.methods]
        return grid.settings_of(cell, method)

    assert of("shapes", "zero_shot", 4) == plain | {"q": 6}
    assert of("shapes", "cbbt", 4) == plain | {"q": 6, "epochs": 4, "views": 2, "batch_size": 3}
    assert of("shapes", "cbbt", 1) == plain | {"q": 6, "epochs": 4, "views": 2, "batch_size": 2}
    assert of("digits", "cbbt", 4) == plain | {"q": 6, "epochs": 5, "views": 5, "batch_size": 3}
    assert grid.settings == plain  # a run's settings are its own
    config = next(config for cell, config in configs(grid) if (config.dataset, config.shots) == ("digits", 4))
    assert (config.q, config.epochs, config.views, config.batch_size, config.clip_norm) == (6, 5, 5, 3, 1.0)


def test_a_rule_may_take_a_setting_back():
    grid = with_rules({"for": {"method": "cbbt"}, "set": {"max_loss_queries": None}}, settings={"max_loss_queries": 50})
    assert {(config.method, config.max_loss_queries) for _, config in configs(grid)} == {("zero_shot", 50), ("cbbt", None)}


def test_a_rule_may_set_options_of_the_method_it_is_for():
    grid = with_rules({"for": {"method": "zip"}, "set": {"rank": 3}}, methods=["cbbt", "zip"])
    assert {config.settings.rank for _, config in configs(grid) if config.method == "zip"} == {3}


def test_words_of_a_data_set_come_from_its_rules():
    words = {"template": "a texture of {}.", "class_names": ["a", "b"]}
    grid = with_rules({"for": {"dataset": "shapes"}, "set": words | {"q": 3}}, settings={"template": "{}"})
    assert grid.words() == {"digits": {"template": "{}"}, "shapes": words}


def test_chosen_settings_that_are_for_nothing_here_are_passed_over(tmp_path):
    """A file of chosen settings is for all grids: it may name what this one has not."""
    elsewhere = [
        rule(method="coop4"), rule(dataset=["textures"]), rule(shots=[8, 16]), rule(variant="budget500"),
        {"for": {"method": "zip"}, "set": {"rank": 2}},
    ]  # fmt: skip
    chosen = write_chosen(tmp_path, [*elsewhere, {"for": {"method": ["cbbt", "zip"], "shots": [4, 16]}, "set": {"q": 17}}])
    found = {(config.method, config.shots): config.q for _, config in configs(with_rules(chosen=chosen))}
    assert found == {("zero_shot", 0): 8, ("cbbt", 1): 8, ("cbbt", 4): 17}
    nothing = with_rules(chosen=write_chosen(tmp_path, []))
    assert configs(nothing) == configs(with_rules())


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "the file of chosen settings /.*/chosen.yaml cannot be read: .*No such file"),
        ("- {for: {method: cbbt}", "the file of chosen settings /.*/chosen.yaml cannot be read: "),
        ("", "the file of chosen settings /.*/chosen.yaml should hold a list of rules, got None"),
        ("cbbt: {q: 3}", "the file of chosen settings /.*/chosen.yaml should hold a list of rules, got {'cbbt'"),
        ("- cbbt", "a rule must look like .* got 'cbbt'"),
        ([{"for": {"method": "cbbt"}, "sets": {"q": 3}}], "a rule must look like .* got {'for'"),
        ([rule(seed=1)], "'seed' is unknown, choose from dataset, method, shots, variant"),
        ([{"for": {"method": "coop4"}, "set": {"shots": 4}}], "the rule {.* sets shots: use the lists"),
        ([{"for": {"method": "cbbt"}, "set": {"qq": 4}}], "unknown setting 'qq'; nearest: q"),
        ([{"for": {"method": "cbbt"}, "set": {"q": 0}}], "q must be at least 1"),
    ],
)
def test_a_file_of_chosen_settings_that_cannot_be_is_named(tmp_path, content, message):
    chosen = str(tmp_path / "chosen.yaml") if content is None else write_chosen(tmp_path, content)
    with pytest.raises(ValueError, match=message):
        with_rules(chosen=chosen)


def test_a_file_of_chosen_settings_may_lie_below_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_chosen(tmp_path, [rule(method="cbbt")])
    assert {config.q for _, config in configs(with_rules(chosen="~/chosen.yaml")) if config.method == "cbbt"} == {33}


def test_records_lie_below_the_results_unless_grids_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Grid.from_dict(GOOD).runs == "r/runs"
    assert Grid.from_dict(GOOD | {"runs": "all/runs"}).runs == "all/runs"
    assert Grid.from_dict(GOOD | {"runs": "~/runs"}).runs == str(tmp_path / "runs")


def test_a_variant_may_be_of_some_methods_only():
    grid = Grid.from_dict(
        GOOD | {"methods": ["true_gradient", "cbbt"], "variants": {"all": {}, "few": {"q": 3, "methods": ["cbbt"]}}}
    )
    methods = {(cell.variant, cell.methods) for cell in grid.cells()}
    assert methods == {("all", ("true_gradient", "cbbt")), ("few", ("cbbt",))}
    assert {config.q for cell in grid.cells() if cell.variant == "few" for config in grid.configs(cell)} == {3}


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.name)
def test_a_cells_notebook_makes_the_runs_of_the_grid(path):
    """As notebook 3 turns the parameters of a cell into configurations, its own defaults first."""
    cells = nbformat.read(ROOT / "notebooks" / "03_training.ipynb", as_version=4).cells
    source = next(cell.source for cell in cells if "method_configs(" in cell.source)
    (line,) = [line for line in source.splitlines() if line.startswith("settings = ")]
    grid = Grid.from_dict(yaml.safe_load(path.read_text()))
    for cell in grid.cells():
        p = SimpleNamespace(backbone="mini", pretrained="default")
        p.settings = {method: grid.settings_of(cell, method) for method in cell.methods}
        exec(line, names := {"p": p})
        common = {"dataset": cell.dataset, "shots": cell.shots}
        assert method_configs(cell.methods, grid.seeds, names["settings"], common) == grid.configs(cell)


@pytest.mark.parametrize("shots", [["1", "4"], "[1, 4]", "1, 4", (1, 4), [1.0, 4]])
def test_lists_in_any_form_that_yaml_and_the_command_line_give(shots):
    assert Grid.from_dict(GOOD | {"shots": shots, "settings": {"prompt_lr": "1e-3"}}).shots == (1, 4)


def test_cells_of_one_name_are_refused(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place / "my birds").mkdir(parents=True)
    both = [str(tmp_path / place / "my birds") for place in ("a", "b")]
    good = GOOD | {"rules": []}
    assert Grid.from_dict(good | {"datasets": both[:1]}).cells()[0].name == "my-birds.4shot.default"
    with pytest.raises(ValueError, match="two cells would have the name my-birds.4shot.default"):
        Grid.from_dict(good | {"datasets": both})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"dataset": ["digits"]}, "unknown key 'dataset'.*datasets"),
        ({"methods": ["cbt"], "rules": []}, "'cbt' is unknown, choose from zero_shot, zero_shot_bare"),
        ({"methods": ["coop"], "rules": []}, "'coop' is unknown, choose from .*coop4"),
        ({"runs": 3}, "runs must be str, got 3"),
        ({"chosen": ["c.yaml"]}, "chosen must be str"),
        ({"shots": []}, "shots is empty: name at least one"),
        ({"shots": ["four"]}, "each of shots must be int, got 'four'"),
        ({"shots": {}}, "shots must be list"),
        ({"seeds": [1, True]}, "each of seeds must be int, got True"),
        ({"seeds": [1, 1]}, "seeds has 1 twice"),
        ({"datasets": [["digits"]]}, "each of datasets must be str"),
        ({"datasets": [2024]}, "each of datasets must be str, got 2024; in quotes"),
        ({"results": 3}, "results must be str, got 3"),
        ({"tables": ["t"]}, "tables must be str"),
        ({"figures": None}, "figures must be str, got None"),
        ({"data_root": {}}, "data_root must be str"),
        ({"cache": True}, "cache must be str, got True"),
        ({"workers": "two"}, "workers must be int, got 'two'"),
        ({"workers": -1}, "workers must be at least 0"),
        ({"settings": ["q"]}, "settings must be dict"),
        ({"settings": {"shots": 4}}, "settings sets shots: use the lists"),
        ({"variants": {}}, "variants must have at least one entry"),
        ({"variants": {"a": None}}, "variants.a must be dict, .* got None"),
        ({"variants": {"a": {"methods": ["true_gradient"]}}}, "variants.a names 'true_gradient', choose from zero_shot, cbbt"),
        ({"notebook_per": "cell"}, "notebook_per='cell' is unknown, choose from shots, method"),
        ({"gradient": {"datset": "digits"}}, "unknown parameter 'datset': did you mean dataset"),
        ({"gradient": {"repeats": "many"}}, "parameter repeats must be int, got 'many'"),
        ({"settings": {"qq": 3}}, "unknown setting 'qq'; nearest: q"),
        ({"settings": {"q": 0}}, "q must be at least 1"),
        ({"per_method": {"cbbt": {"q": 3}}}, "unknown key 'per_method' in the grid; valid: .*rules"),
        ({"per_dataset": {"shapes": {"q": 3}}}, "unknown key 'per_dataset' in the grid; valid: .*rules"),
        ({"rules": {"cbbt": 3}}, "rules must be list"),
        ({"rules": [3]}, r"a rule must look like \{for: .*, set: .*\}, got 3"),
        ({"rules": ["cbbt"]}, "a rule must look like .* got 'cbbt'"),
        ({"rules": [{"for": {"method": "cbbt"}}]}, "a rule must look like .* got {'for'"),
        ({"rules": [rule(method="cbbt") | {"why": "so"}]}, "a rule must look like .* got {'for'"),
        ({"rules": [{"for": "cbbt", "set": {"q": 3}}]}, "a rule must look like .* got {'for': 'cbbt'"),
        ({"rules": [{"for": {"method": "cbbt"}, "set": [{"q": 3}]}]}, "a rule must look like .* got {'for'"),
        ({"rules": [rule(seed=1)]}, "what a rule selects by .*'seed' is unknown, choose from dataset, method, shots, variant"),
        ({"rules": [rule(methods=["cbbt"])]}, "'methods' is unknown, choose from dataset, method, shots, variant"),
        ({"rules": [rule(method="coops")]}, "method in the rule {.*'coops' is unknown, choose from zero_shot, cbbt"),
        ({"rules": [rule(method=["cbbt", "zip"])]}, "method in the rule {.*'zip' is unknown, choose from zero_shot, cbbt"),
        ({"rules": [rule(dataset="dtd")]}, "dataset in the rule {.*'dtd' is unknown, choose from digits, shapes"),
        ({"rules": [rule(shots=16)]}, "shots in the rule {.*=16 is unknown, choose from 0, 1, 4"),
        ({"rules": [rule(shots=["1"])]}, "shots in the rule {.*='1' is unknown, choose from 0, 1, 4"),
        ({"rules": [rule(variant="few")]}, "variant in the rule {.*'few' is unknown, choose from default"),
        ({"rules": [{"for": {"method": "cbbt"}, "set": {"shots": 4}}]}, "the rule {.* sets shots: use the lists"),
        ({"rules": [{"for": {}, "set": {"qq": 4}}]}, "unknown setting 'qq'; nearest: q"),
        ({"rules": [{"for": {"method": "cbbt"}, "set": {"rank": 4}}]}, "unknown setting 'rank'"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises((ValueError, TypeError, NameError), match=message):
        Grid.from_dict(GOOD | change)


def test_missing_keys_are_named():
    with pytest.raises(ValueError, match="lacks seeds"):
        Grid.from_dict({key: value for key, value in GOOD.items() if key != "seeds"})


def test_the_papers_grid_has_each_cards_epochs():
    from cbbt.data.cards import CARDS

    grid = Grid.from_dict(yaml.safe_load((ROOT / "configs" / "paper.yaml").read_text()))
    assert set(grid.datasets) == set(CARDS)
    for cell, config in configs(grid):
        if config.method in ("true_gradient", "cbbt_prompt", "adapter", "cbbt"):
            longer = (config.dataset, cell.variant) == ("imagenet", "ViT-B-16") and config.method in ("adapter", "cbbt")
            assert config.epochs == (20 if longer else CARDS[config.dataset].epochs)


def test_an_unknown_data_set_is_refused_before_anything_starts():
    with pytest.raises(DataError, match="Did you mean digits"):
        Grid.from_dict(GOOD | {"datasets": ["digitz"], "rules": []})


SHIPPED = [path.stem for path in GRIDS if CONFIGS[path]["tables"].startswith("figures/data")]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_table_of_a_grid_holds_each_of_its_runs_once(name):
    grid = Grid.from_file(ROOT / "configs" / f"{name}.yaml")
    wanted = [config.run_id for _, config in configs(grid)]
    assert sorted(read_table(ROOT / grid.tables / "runs.csv").run_id) == sorted(wanted)
