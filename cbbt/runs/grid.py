"""A grid of runs for the batch: data sets × methods × shots × seeds.

A grid file (see `configs/default.yaml`) is checked completely before anything
starts. One *cell* is a data set, a number of shots, a variant of the settings and
either one method or all of them: the runs that one executed notebook carries out
and compares. Methods that need no shots run once, with none, in the cell with the most shots.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import yaml

from cbbt.checks import choose, read_as, require_distinct
from cbbt.data.load import require_data, require_known
from cbbt.methods import METHODS
from cbbt.notebook import check_parameters, project_root
from cbbt.runs.config import RunConfig, dataset_name

AXES = ("dataset", "method", "shots", "seed")  # fields of `RunConfig` that the lists of the grid set
SELECTORS = ("dataset", "method", "shots", "variant")  # by which a rule may select runs
FOLDERS = ("results", "tables", "figures", "runs", "data_root", "cache", "chosen")


@dataclass(frozen=True)
class Cell:
    """One notebook of the batch; its name is the stem of the files it makes."""

    dataset: str
    methods: tuple[str, ...]
    shots: int
    variant: str

    @property
    def name(self) -> str:
        parts = [dataset_name(self.dataset), *self.methods[: len(self.methods) == 1], f"{self.shots}shot", self.variant]
        return re.sub(r"[^\w.-]", "-", ".".join(parts))  # a user's folder may have any name


@dataclass(frozen=True)
class Grid:
    """A validated grid.

    results: folder of everything the batch makes. tables: folder of the collected
    tables. figures: folder of the figures. data_root: folder of the benchmarks. cache: folder
    that keeps image features between runs. workers: processes that decode images.
    runs: folder of the records; grids with the same folder share their common runs, and
    without it each has its own, in results. settings: fields of `RunConfig` for all runs.
    rules: the same for some, `{for: {method: cbbt, shots: [1, 4]}, set: {q: 16}}`, selected by
    dataset, method, shots or variant. chosen: a YAML file of such rules, made by
    `cbbt.runs.choice`; those that select nothing here are ignored. variants: name →
    settings, a further axis of the grid (ablations, choices on validation); the key `methods`
    in one restricts it to some of the grid's. Later ones win: settings, chosen, rules, variant.
    gradient: parameters of notebook 02b. notebook_per: "shots" (all methods in one notebook:
    less start-up) or "method" (more to run in parallel).
    """

    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    shots: tuple[int, ...]
    seeds: tuple[int, ...]
    results: str
    tables: str
    figures: str
    runs: str = ""
    data_root: str = ""
    cache: str = ""
    workers: int = 0
    settings: dict = field(default_factory=dict)
    chosen: str = ""
    rules: list = field(default_factory=list)
    variants: dict = field(default_factory=lambda: {"default": {}})
    gradient: dict = field(default_factory=dict)
    notebook_per: str = "shots"

    @classmethod
    def from_file(cls, path: str | Path, changes: dict | None = None) -> Grid:
        """`from_dict` of a YAML file, with some keys changed.

        Raises ValueError also for a missing file or invalid YAML; all errors name the file.
        """
        values = _from_yaml(path, "the grid file")
        if not isinstance(values, dict):
            raise ValueError(f"the grid file {path} should hold keys and values, like configs/default.yaml, got {values!r:.80}")
        try:
            return cls.from_dict(values | (changes or {}))
        except (ValueError, TypeError, NameError) as error:
            raise type(error)(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, values: dict) -> Grid:
        """Check every key, name and value; ValueError, TypeError or DataError names the valid ones."""
        expected = get_type_hints(cls)
        for key in values:
            if key not in expected:
                raise ValueError(f"unknown key {key!r} in the grid; valid: {', '.join(expected)}")
        needed = [each.name for each in fields(cls) if each.default is MISSING and each.default_factory is MISSING]
        if missing := [name for name in needed if name not in values]:
            raise ValueError(f"the grid lacks {', '.join(missing)}")
        checked = {key: _checked(key, value, expected[key]) for key, value in values.items()}
        grid = cls(**checked | {key: os.path.expanduser(checked[key]) for key in FOLDERS if key in checked})
        if not grid.runs:
            object.__setattr__(grid, "runs", os.path.join(grid.results, "runs"))
        if grid.notebook_per not in ("shots", "method"):
            raise ValueError(f"notebook_per={grid.notebook_per!r} is unknown, choose from shots, method")
        if grid.workers < 0:
            raise ValueError(f"workers must be at least 0, got {grid.workers}")
        if not grid.variants:
            raise ValueError("variants must have at least one entry; omit the key for a grid without variants")
        grid._check_settings()
        for dataset in grid.datasets:
            require_known(dataset)
        cells = Counter(cell.name for cell in grid.cells())
        if twice := [name for name, count in cells.items() if count > 1]:
            raise ValueError(
                f"two cells would have the name {twice[0]}: give the data sets' folders or the variants different names"
            )
        for cell in grid.cells():
            grid.configs(cell)
        check_parameters(project_root() / "notebooks" / "02b_analysis.ipynb", grid.gradient)
        return grid

    def _check_settings(self) -> None:
        """Check that settings are mappings without the axes, and that rules select existing runs; `RunConfig` checks the rest."""
        entries = {"settings": self.settings}
        entries |= {f"variants.{name}": _checked(f"variants.{name}", settings, dict) for name, settings in self.variants.items()}
        choices = {"dataset": self.datasets, "method": self.methods, "shots": (0, *self.shots), "variant": tuple(self.variants)}
        for rule in self.rules:
            for axis, values in _read_rule(rule)[0].items():
                for value in values:
                    choose(f"{axis} in the rule {rule}", value, choices[axis])
        entries |= {f"the rule {{for: {selected}, set: {values}}}": values for selected, values in self.all_rules}
        for title, settings in entries.items():
            if taken := [name for name in AXES if name in settings]:
                raise ValueError(f"{title} sets {', '.join(taken)}: use the lists datasets, methods, shots, seeds for that")
        for name, settings in self.variants.items():
            for method in _checked(f"variants.{name}.methods", settings.get("methods", self.methods), tuple[str, ...]):
                if method not in self.methods:
                    raise ValueError(f"variants.{name} names {method!r}, choose from {', '.join(self.methods)}")

    def require_data(self) -> None:
        """Raise `DataError`, which says what is missing, unless the data of all cells exist."""
        wanted = dict.fromkeys((config.dataset, config.split) for cell in self.cells() for config in self.configs(cell))
        for dataset, split in wanted:
            require_data(dataset, self.data_root, split)

    def cells(self) -> list[Cell]:
        """All cells, the longest first, in a fixed order."""
        needing = tuple(m for m in self.methods if m not in METHODS or METHODS[m].needs_shots)
        most, *fewer = sorted(self.shots, reverse=True)
        groups = [(most, self.methods)] + [(shots, needing) for shots in fewer]
        if self.notebook_per == "method":
            groups = [(shots, (method,)) for shots, methods in groups for method in methods]
        return [
            Cell(dataset, chosen, shots, variant)
            for shots, methods in groups
            for dataset in self.datasets
            for variant, settings in self.variants.items()
            if (chosen := tuple(method for method in methods if method in settings.get("methods", methods)))
        ]

    def settings_of(self, cell: Cell, method: str) -> dict:
        """Fields of `RunConfig` that the grid sets for a method in a cell, without seeds and shots."""
        shots = cell.shots if METHODS[method].needs_shots else 0
        place = {"dataset": cell.dataset, "method": method, "shots": shots, "variant": cell.variant}
        settings = dict(self.settings)
        for selected, values in self.all_rules:
            if all(place[axis] in wanted for axis, wanted in selected.items()):
                settings |= values
        return settings | {name: value for name, value in self.variants[cell.variant].items() if name != "methods"}

    @cached_property
    def all_rules(self) -> list[tuple[dict, dict]]:
        """The rules of the file `chosen`, then the grid's own: what each selects (axis → values), and sets."""
        kept = _from_yaml(self.chosen, "the file of chosen settings") if self.chosen else []
        if not isinstance(kept, list):
            raise ValueError(f"the file of chosen settings {self.chosen} should hold a list of rules, got {kept!r:.80}")
        return [_read_rule(rule) for rule in (*kept, *self.rules)]

    def words(self) -> dict[str, dict]:
        """For each data set, its split, template and class names, as far as the grid sets them."""
        names = ("split", "template", "class_names")
        given = {cell.dataset: self.settings_of(cell, cell.methods[0]) for cell in self.cells()}
        return {dataset: {name: values[name] for name in names if name in values} for dataset, values in given.items()}

    def configs(self, cell: Cell) -> list[RunConfig]:
        """The runs of a cell, method by method, one per seed."""
        configs = []
        for method in cell.methods:
            choose("method", method, METHODS)
            shots = cell.shots if METHODS[method].needs_shots else 0
            values = self.settings_of(cell, method) | {"dataset": cell.dataset, "method": method, "shots": shots}
            configs += [RunConfig.from_dict(values | {"seed": seed}) for seed in self.seeds]
        return configs


def _from_yaml(path: str | Path, what: str):
    """The content of a YAML file. Raises ValueError, which names it, for a missing file or invalid YAML."""
    try:
        return yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ValueError(f"{what} {Path(path).absolute()} cannot be read: {' '.join(str(error).split())}") from error


def _read_rule(rule) -> tuple[dict, dict]:
    """What a rule selects, axis → list of values, and what it sets. Raises ValueError for anything but a rule."""
    form = "{for: {method: cbbt, shots: [1, 4]}, set: {q: 16}}"
    if not isinstance(rule, dict) or set(rule) != {"for", "set"} or not all(isinstance(part, dict) for part in rule.values()):
        raise ValueError(f"a rule must look like {form}, got {rule!r}")
    for axis in rule["for"]:
        choose(f"what a rule selects by (as {form})", axis, SELECTORS)
    return {axis: value if isinstance(value, list) else [value] for axis, value in rule["for"].items()}, rule["set"]


def _checked(name: str, value, expected):
    """`value`, a list as a tuple; TypeError names the expected type, ValueError a duplicate."""
    if get_origin(expected) is not tuple:
        return read_as(name, value, expected)
    entries = [read_as(f"each of {name}", entry, get_args(expected)[0]) for entry in read_as(name, value, list)]
    require_distinct(name, entries)
    return tuple(entries)
