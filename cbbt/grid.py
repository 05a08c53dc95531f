"""A grid of runs for the batch: data sets × methods × shots × seeds.

A grid file (see `configs/default.yaml`) is checked in full before anything
starts. One *cell* is a data set, a number of shots, a variant of the settings and
either one method or all of them: the runs that one executed notebook carries out
and compares. Methods that need no shots run once, with none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cbbt.data.load import require_known
from cbbt.config import RunConfig
from cbbt.methods import METHODS


@dataclass(frozen=True)
class Cell:
    """One notebook of the batch; its name is the stem of the files it makes."""

    dataset: str
    methods: tuple[str, ...]
    shots: int
    variant: str

    @property
    def name(self) -> str:
        dataset = self.dataset.strip("/").replace("/", "-")  # a folder of one's own
        return ".".join([dataset, *self.methods[: len(self.methods) == 1], f"{self.shots}shot", self.variant])


@dataclass(frozen=True)
class Grid:
    """A validated grid.

    results: folder of everything the batch makes. tables: folder of the collected
    tables. figures: folder of the figures. data_root: folder of the benchmarks. cache: folder
    that keeps image features between runs. workers: processes that decode images.
    settings: fields of `RunConfig` for all runs; per_dataset, per_method: the same
    for one data set or method; variants: name → settings, a further axis of the grid
    (ablations, choices on validation). Later ones win: settings, per_dataset,
    per_method, variant. gradient: parameters of notebook 02. notebook_per: "shots"
    (all methods in one notebook: less start-up) or "method" (more to run in parallel).
    """

    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    shots: tuple[int, ...]
    seeds: tuple[int, ...]
    results: str
    tables: str
    figures: str
    data_root: str = ""
    cache: str = ""
    workers: int = 0
    settings: dict = field(default_factory=dict)
    per_dataset: dict = field(default_factory=dict)
    per_method: dict = field(default_factory=dict)
    variants: dict = field(default_factory=lambda: {"default": {}})
    gradient: dict = field(default_factory=dict)
    notebook_per: str = "shots"

    @classmethod
    def from_dict(cls, values: dict) -> Grid:
        """Check every key, name and value; ValueError, TypeError or DataError names the valid ones."""
        known = cls.__dataclass_fields__
        for key in values:
            if key not in known:
                raise ValueError(f"unknown key {key!r} in the grid; valid: {', '.join(known)}")
        missing = [key for key in ("datasets", "methods", "shots", "seeds", "results", "tables", "figures") if key not in values]
        if missing:
            raise ValueError(f"the grid lacks {', '.join(missing)}")
        for key in ("datasets", "methods", "shots", "seeds"):
            if not isinstance(values[key], (list, tuple)) or not values[key]:
                raise TypeError(f"{key} must be a list with at least one entry, got {values[key]!r}")
            values = values | {key: tuple(values[key])}
        grid = cls(**values)
        if grid.notebook_per not in ("shots", "method"):
            raise ValueError(f"notebook_per={grid.notebook_per!r} is unknown, choose from shots, method")
        for title, table, entries in (
            ("per_dataset", grid.per_dataset, grid.datasets),
            ("per_method", grid.per_method, tuple(METHODS)),
        ):
            for key in table:
                if key not in entries:
                    raise ValueError(f"{title} names {key!r}, choose from {', '.join(entries)}")
        for dataset in grid.datasets:
            require_known(dataset)
        for cell in grid.cells():
            grid.configs(cell)
        return grid

    def cells(self) -> list[Cell]:
        """All cells, the longest first, the same list each time."""
        needing = tuple(m for m in self.methods if m not in METHODS or METHODS[m].needs_shots)
        without = tuple(m for m in self.methods if m not in needing)
        groups = [(shots, needing) for shots in sorted(self.shots, reverse=True)] + [(0, without)]
        if self.notebook_per == "method":
            groups = [(shots, (method,)) for shots, methods in groups for method in methods]
        return [
            Cell(dataset, methods, shots, variant)
            for shots, methods in groups
            if methods
            for dataset in self.datasets
            for variant in self.variants
        ]

    def settings_of(self, cell: Cell, method: str) -> dict:
        """Fields of `RunConfig` that the grid sets for a method in a cell, seeds and shots apart."""
        by_dataset, by_method = self.per_dataset.get(cell.dataset, {}), self.per_method.get(method, {})
        return self.settings | by_dataset | by_method | self.variants[cell.variant]

    def configs(self, cell: Cell) -> list[RunConfig]:
        """The runs of a cell, method by method, one per seed."""
        return [
            RunConfig.from_dict(
                self.settings_of(cell, method)
                | {"dataset": cell.dataset, "method": method, "shots": cell.shots, "seed": seed}
            )
            for method in cell.methods
            for seed in self.seeds
        ]
