"""Counting the queries to a black box, and stopping at a budget.

Three grains, because the literature counts differently: a *loss query* is one
context scored on one batch, a *class prompt* is one text encoded, an *image* is
one picture encoded. One step of CBBT with q directions and C classes costs q + 1
loss queries and (q + 1) · C class prompts.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

GRAINS = ("loss_queries", "class_prompts", "images")


class BudgetExceeded(RuntimeError):
    """The next query would cost more than the budget allows; it was not answered."""


class Ledger:
    """Counts of queries at three grains, with an optional budget for each.

    Args:
        budget: grain → largest count allowed; grains not named are unlimited.
        journal: a file to which each query is appended before it is answered,
            so that the queries are known even after the process is killed.
            Unlike the counts, it is never rolled back.
        name: by which a server tells this ledger's requests from others; a resumed run
            uses the same name. A new one if None.

    Raises ValueError for an unknown grain or a negative budget.
    """

    def __init__(self, budget: dict[str, int] | None = None, journal: Path | None = None, name: str | None = None):
        for grain, limit in (budget or {}).items():
            if grain not in GRAINS or limit < 0:
                raise ValueError(f"budget {grain}={limit}: grains are {', '.join(GRAINS)}, limits are ≥ 0")
        self.budget = dict(budget or {})
        self.journal = Path(journal) if journal else None
        self.name = name or uuid.uuid4().hex
        self.counts = dict.fromkeys(GRAINS, 0)
        self.spared = dict.fromkeys(GRAINS, 0)  # the part of the counts that was not sent to the box

    def charge(self, grain: str, count: int, answered: bool = True) -> None:
        """Add `count` queries, or raise `BudgetExceeded` and add nothing.

        With `answered=False` the box is not queried because the answers are already
        available (cached features): they cost the method as much and count towards
        the budget, but not towards `asked`.
        """
        limit = self.budget.get(grain)
        if limit is not None and self.counts[grain] + count > limit:
            raise BudgetExceeded(f"{grain}: {self.counts[grain]} spent, the next query costs {count}, the budget is {limit}")
        self.counts[grain] += count
        if not answered:
            self.spared[grain] += count
        elif self.journal:
            self._note(grain, count)

    @contextlib.contextmanager
    def question(self, **cost: int) -> Iterator[None]:
        """Charge `cost` (grain → count) for the query made in the block; a refused query costs nothing.

        A query is refused if the block raises ValueError or `BudgetExceeded` (the server's budget).
        """
        for grain, count in cost.items():
            self.charge(grain, count)
        try:
            yield
        except (ValueError, BudgetExceeded):
            for grain, count in cost.items():
                self.charge(grain, -count)
            raise

    def _note(self, grain: str, count: int) -> None:
        try:
            with self.journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps([grain, count]) + "\n")
        except OSError as error:
            raise OSError(f"cannot write {self.journal}: {error}") from error

    def affordable_steps(self, cost: dict[str, int]) -> int | None:
        """How many more steps of this cost (grain → count) the budget allows; None if it has no limit.

        Raises `BudgetExceeded` if it allows none: a model that made no step must not be scored as tuned.
        """
        left = {grain: self.budget[grain] - self.counts[grain] for grain, count in cost.items() if grain in self.budget and count}
        if not left:
            return None
        steps = min(left[grain] // cost[grain] for grain in left)
        if steps < 1:
            parts = (f"{cost[grain]} {grain}, of which {left[grain]} are left" for grain in left)
            raise BudgetExceeded(f"the budget does not allow one step, which costs {'; '.join(parts)}")
        return steps

    def asked(self) -> dict[str, int]:
        """All queries that reached the box: the journal's total, or the counts without those answered from a cache."""
        if not (self.journal and self.journal.exists()):
            return {grain: self.counts[grain] - self.spared[grain] for grain in GRAINS}
        totals = dict.fromkeys(GRAINS, 0)
        for line in self.journal.read_text().splitlines():
            try:
                grain, count = json.loads(line)
            except ValueError:
                continue  # a line truncated by a kill: its query was never answered
            totals[grain] += count
        return totals

    def __repr__(self) -> str:
        return f"Ledger({', '.join(f'{grain}={count}' for grain, count in self.counts.items())})"
