"""The loop of the searches: methods that learn from losses, one query after another.

A *searcher* is a method's algorithm, divided into steps; `search` carries out the
steps within the budget, records the anytime curve, keeps the best on validation, and
resumes after a kill. Evolution strategies, SPSA and word search are searchers; CBBT
and its variants have a loop of their own in `cbbt.learning.tuning`.
"""

from __future__ import annotations

from typing import Protocol

import torch
from tqdm.auto import tqdm

from cbbt.box.ledger import BudgetExceeded
from cbbt.learning.fitting import Classifier, Fitted, Session, Support
from cbbt.learning.progress import Progress, part

POINTS = 40  # of an anytime curve


class Searcher(Protocol):
    """One method as a sequence of steps. Every draw of a step comes from a generator of
    its own (`cbbt.seeding`), so that a step does not depend on which process makes it."""

    cost: dict[str, int]  # grain → queries per step; empty if steps differ and the searcher has planned the budget itself

    def step(self, index: int, steps: int) -> dict:
        """Make step `index` of `steps`; returns columns of the history, `train_loss` among them.

        If the box refuses a query, the searcher must be left as it was.
        """

    def parameters(self) -> dict[str, torch.Tensor]:
        """What would be deployed now. Its floating-point numbers count as learned; words are bytes, and do not."""

    def classifier(self, box, parameters: dict[str, torch.Tensor]) -> Classifier:
        """The classifier of such parameters, as an independent copy; its queries go to `box`."""

    def state(self) -> dict[str, torch.Tensor]:
        """All that `restore` needs to continue as if uninterrupted."""

    def restore(self, state: dict[str, torch.Tensor]) -> None: ...


def search(box, support: Support, config, session: Session, searcher: Searcher, steps: int) -> Fitted:
    """Carry out `steps` steps, or as many as the budget allows.

    The classifier is evaluated at `POINTS` evenly spaced steps, each an epoch of the history.
    Raises ValueError without shots, and BudgetExceeded if the budget does not allow one step.
    """
    if not len(support.labels):
        raise ValueError("the support set is empty: choose shots ≥ 1")
    progress = Progress(config, session, box.ledger)
    affordable = box.ledger.affordable_steps(searcher.cost)  # before a checkpoint adds to the counts
    steps = steps if affordable is None else affordable
    restored = progress.restore(box.device)
    if restored:
        searcher.restore(part(restored[0], "state."))
    every = max(1, steps // POINTS)
    bar = range(progress.step, steps)
    for index in tqdm(bar, initial=progress.step, total=steps, desc="search", delay=3, disable=not session.progress, leave=False):
        try:
            columns = searcher.step(index, steps)
        except BudgetExceeded:
            break
        progress.step += 1
        if progress.step % every == 0 or progress.step == steps:
            parameters = searcher.parameters()
            classifier = searcher.classifier(session.judge, parameters)
            progress.close_epoch(classifier, parameters, support, columns)
        if progress.due:
            progress.save({f"state.{key}": value for key, value in searcher.state().items()})
    parameters = searcher.parameters()
    last = searcher.classifier(session.judge, parameters)
    best = searcher.classifier(session.judge, progress.best) if progress.best else None
    learned = sum(tensor.numel() for tensor in parameters.values() if tensor.is_floating_point())
    return Fitted(last, best, progress.best_epoch, progress.history, learned)
