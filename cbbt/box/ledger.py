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
        journal: a file to which each question is appended before it is answered,
            so that the queries are known even after the process is killed.
            Unlike the counts, it is never rolled back.
        name: what a served box tells questions of this ledger from others by; a run that
            is resumed gives the same again. A fresh one if None.

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
        self.spared = dict.fromkeys(GRAINS, 0)  # of the counts, what the box was not asked

    def charge(self, grain: str, count: int, answered: bool = True) -> None:
        """Add `count` queries, or raise `BudgetExceeded` and add nothing.

        With `answered=False` the box is not queried, because the answers are available
        (features kept on disk): they cost the method as much, and count towards
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
        """Charge `cost` (grain → count) for what is asked in the block; a question that is refused there costs nothing.

        Refused is what ends in ValueError or `BudgetExceeded` (of the side that answers).
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
        """How many more steps of this cost (grain → count) the budget pays for; None if it does not say.

        Raises `BudgetExceeded` if it does not pay for one: a model that made no step must not be scored as tuned.
        """
        left = {grain: self.budget[grain] - self.counts[grain] for grain, count in cost.items() if grain in self.budget and count}
        if not left:
            return None
        steps = min(left[grain] // cost[grain] for grain in left)
        if steps < 1:
            parts = (f"{cost[grain]} {grain}, of which {left[grain]} are left" for grain in left)
            raise BudgetExceeded(f"the budget does not pay for one step: it costs {'; '.join(parts)}")
        return steps

    def asked(self) -> dict[str, int]:
        """All that the box was ever asked: the journal's total, or the counts less what was spared."""
        if not (self.journal and self.journal.exists()):
            return {grain: self.counts[grain] - self.spared[grain] for grain in GRAINS}
        totals = dict.fromkeys(GRAINS, 0)
        for line in self.journal.read_text().splitlines():
            try:
                grain, count = json.loads(line)
            except ValueError:
                continue  # a line cut off by a kill: its query was never answered
            totals[grain] += count
        return totals

    def __repr__(self) -> str:
        return f"Ledger({', '.join(f'{grain}={count}' for grain, count in self.counts.items())})"
