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
GOOD = {
    "datasets": ["digits", "shapes"],
    "methods": ["zero_shot", "cbbt"],
    "shots": [1, 4],
    "seeds": [1, 2],
    "results": "r",
    "tables": "t",
    "figures": "f",
    "settings": {"q": 8},
    "per_dataset": {"shapes": {"epochs": 7, "q": 9}},
    "per_method": {"cbbt": {"epochs": 3}},
}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
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

    per_method = Grid.from_dict(GOOD | {"notebook_per": "method", "methods": ["zero_shot", "cbbt", "coop"]})
    per_shots = Grid.from_dict(GOOD | {"methods": ["zero_shot", "cbbt", "coop"]})
    assert runs(per_method) == runs(per_shots)
    assert "digits.cbbt.4shot.default" in [cell.name for cell in per_method.cells()]


def test_variants_are_an_axis_that_wins():
    grid = Grid.from_dict(GOOD | {"variants": {"few": {"q": 3}, "many": {"q": 99}}})
    assert {config.q for cell in grid.cells() for config in grid.configs(cell)} == {3, 99}
    assert len(grid.cells()) == 8


def test_a_variant_may_be_of_some_methods_only():
    grid = Grid.from_dict(GOOD | {"methods": ["coop", "cbbt"], "variants": {"all": {}, "few": {"q": 3, "methods": ["cbbt"]}}})
    methods = {(cell.variant, cell.methods) for cell in grid.cells()}
    assert methods == {("all", ("coop", "cbbt")), ("few", ("cbbt",))}
    assert {config.q for cell in grid.cells() if cell.variant == "few" for config in grid.configs(cell)} == {3}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
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
    good = GOOD | {"per_dataset": {}}
    assert Grid.from_dict(good | {"datasets": both[:1]}).cells()[0].name == "my-birds.4shot.default"
    with pytest.raises(ValueError, match="two cells of the grid would be called my-birds.4shot.default"):
        Grid.from_dict(good | {"datasets": both})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"dataset": ["digits"]}, "unknown key 'dataset'.*datasets"),
        ({"methods": ["cbt"]}, "'cbt' is unknown, choose from zero_shot, coop"),
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
        ({"settings": {"shots": 4}}, "settings sets shots: that is for the lists"),
        ({"per_method": {"cbbt": 3}}, "per_method.cbbt must be dict, .* got 3"),
        ({"variants": {}}, "variants must have at least one entry"),
        ({"variants": {"a": None}}, "variants.a must be dict, .* got None"),
        ({"variants": {"a": {"methods": ["coop"]}}}, "variants.a names 'coop', choose from zero_shot, cbbt"),
        ({"notebook_per": "cell"}, "notebook_per='cell' is unknown, choose from shots, method"),
        ({"gradient": {"datset": "digits"}}, "unknown parameter 'datset': did you mean dataset"),
        ({"gradient": {"repeats": "many"}}, "parameter repeats must be int, got 'many'"),
        ({"settings": {"qq": 3}}, "unknown setting 'qq'; nearest: q"),
        ({"settings": {"q": 0}}, "q must be at least 1"),
        ({"per_method": {"coops": {}}}, "'coops', choose from zero_shot"),
        ({"per_dataset": {"dtd": {}}}, "'dtd', choose from digits, shapes"),
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
    for cell in grid.cells():
        assert grid.configs(cell)[0].epochs == CARDS[cell.dataset].epochs


def test_an_unknown_data_set_is_refused_before_anything_starts():
    with pytest.raises(DataError, match="Did you mean digits"):
        Grid.from_dict(GOOD | {"datasets": ["digitz"], "per_dataset": {}})


@pytest.mark.parametrize("name", ["full", "ablation"])
def test_the_shipped_table_of_a_grid_holds_each_of_its_runs_once(name):
    grid = Grid.from_dict(yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text()))
    wanted = [config.run_id for cell in grid.cells() for config in grid.configs(cell)]
    assert sorted(read_table(ROOT / grid.tables / "runs.csv").run_id) == sorted(wanted)
