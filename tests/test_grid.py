"""A grid is checked in full before anything starts."""

from pathlib import Path

import pytest
import yaml

from cbbt.data import DataError
from cbbt.grid import Cell, Grid

ROOT = Path(__file__).parent.parent
GOOD = {
    "datasets": ["digits", "shapes"], "methods": ["zero_shot", "cbbt"], "shots": [1, 4], "seeds": [1, 2],
    "results": "r", "tables": "t", "figures": "f", "settings": {"q": 8},
    "per_dataset": {"shapes": {"epochs": 7, "q": 9}}, "per_method": {"cbbt": {"epochs": 3}},
}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_grids_are_valid(path):
    grid = Grid.from_dict(yaml.safe_load(path.read_text()))
    runs = [config.run_id for cell in grid.cells() for config in grid.configs(cell)]
    assert len(set(runs)) == len(runs)


def test_cells_and_settings():
    grid = Grid.from_dict(GOOD)
    assert [cell.name for cell in grid.cells()] == [
        "digits.cbbt.4shot.default", "shapes.cbbt.4shot.default", "digits.cbbt.1shot.default", "shapes.cbbt.1shot.default",
        "digits.zero_shot.0shot.default", "shapes.zero_shot.0shot.default",
    ]
    first, second = grid.configs(Cell("shapes", ("cbbt",), 4, "default"))
    assert (first.seed, second.seed, first.shots, first.q, first.epochs) == (1, 2, 4, 9, 3)


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
    assert len(grid.cells()) == 12


@pytest.mark.parametrize("change, message", [
    ({"dataset": ["digits"]}, "unknown key 'dataset'.*datasets"),
    ({"methods": ["cbt"]}, "'cbt' is unknown, choose from zero_shot, coop"),
    ({"shots": []}, "at least one entry"),
    ({"shots": ["four"]}, "shots must be int, got 'four'"),
    ({"settings": {"qq": 3}}, "unknown setting 'qq'; nearest: q"),
    ({"settings": {"q": 0}}, "q must be at least 1"),
    ({"per_method": {"coops": {}}}, "'coops', choose from zero_shot"),
    ({"per_dataset": {"dtd": {}}}, "'dtd', choose from digits, shapes"),
])
def test_mistakes_are_named(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Grid.from_dict(GOOD | change)


def test_missing_keys_are_named():
    with pytest.raises(ValueError, match="lacks seeds"):
        Grid.from_dict({key: value for key, value in GOOD.items() if key != "seeds"})


def test_the_papers_grid_has_each_cards_epochs():
    from cbbt.data import CARDS

    grid = Grid.from_dict(yaml.safe_load((ROOT / "configs" / "paper.yaml").read_text()))
    assert set(grid.datasets) == set(CARDS)
    for cell in grid.cells():
        assert grid.configs(cell)[0].epochs == CARDS[cell.dataset].epochs


def test_an_unknown_data_set_is_refused_before_anything_starts():
    with pytest.raises(DataError, match="Did you mean digits"):
        Grid.from_dict(GOOD | {"datasets": ["digitz"], "per_dataset": {}})
