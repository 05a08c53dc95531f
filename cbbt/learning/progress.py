"""The progress of a fit: its history, its best on validation, and its checkpoint.

Shared by the collaborative loop (`cbbt.learning.tuning`) and the searches (`cbbt.learning.search`).
A checkpoint is one safetensors file, written atomically: the fit's tensors, and in its
header the step, the history and the counts of both ledgers.
"""

from __future__ import annotations

import copy
import json
import math
import time

import safetensors
import torch
from safetensors.torch import save_file

from cbbt.files import whole_file


class Progress:
    """The state that every fit has besides its own tensors.

    step: steps done. history: a row per epoch. best_epoch, best: number and parameters
    of the epoch that was best on validation, the earliest if several.
    """

    def __init__(self, config, session, ledger):
        self.run_id, self.session, self.ledger = config.run_id, session, ledger
        self.step = 0
        self.history: list[dict] = []
        self.best_epoch: int | None = None
        self.best: dict[str, torch.Tensor] = {}
        self.saved = time.monotonic()

    def close_epoch(self, classifier, parameters: dict[str, torch.Tensor], support, columns: dict) -> None:
        """Write the epoch's row; keep `parameters` if they are the best on validation.

        Raises FloatingPointError, which names the step, if one of `columns` or a logit is not finite.
        """
        try:
            self._close_epoch(classifier, parameters, support, columns)
        except FloatingPointError as error:
            raise FloatingPointError(f"{error} at step {self.step}") from error

    def _close_epoch(self, classifier, parameters, support, columns) -> None:
        for name, value in columns.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise FloatingPointError(f"{name} is {value}")
        row = {"epoch": len(self.history) + 1, "step": self.step} | columns | self.ledger.counts
        if len(support.val_labels):
            row["val_accuracy"] = classifier.accuracy_on(support.val, self.session.judge)
            if row["val_accuracy"] > max((r["val_accuracy"] for r in self.history), default=-1.0):
                self.best_epoch, self.best = row["epoch"], copy.deepcopy(parameters)
        self.history.append(row | self.session.observe(classifier))

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return self.session.checkpoint is not None and time.monotonic() - self.saved > self.session.save_every

    def save(self, tensors: dict[str, torch.Tensor], **own) -> None:
        """Write a checkpoint of `tensors` and of `own`, further state of the fit (JSON)."""
        header = {
            "config": self.run_id,
            "step": self.step,
            "history": self.history,
            "best_epoch": self.best_epoch,
            "ledger": self.ledger.counts,
            "judge_ledger": self.session.judge.ledger.counts,
            "own": own,
        }
        tensors = tensors | {f"best.{key}": value for key, value in self.best.items()}
        with whole_file(self.session.checkpoint) as partial:
            save_file({key: value.contiguous() for key, value in tensors.items()}, partial, {"progress": json.dumps(header)})
        self.saved = time.monotonic()

    def restore(self, device: torch.device) -> tuple[dict[str, torch.Tensor], dict] | None:
        """Tensors and `own` of the checkpoint, if there is one; ValueError if it belongs to another run or is damaged."""
        path = self.session.checkpoint
        if path is None or not path.exists():
            return None
        try:
            with safetensors.safe_open(path, framework="pt", device=str(device)) as file:
                header = json.loads(file.metadata()["progress"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}
        except (OSError, safetensors.SafetensorError) as error:
            raise ValueError(f"{path} cannot be read ({error}): remove it to start the run again") from error
        if header["config"] != self.run_id:
            raise ValueError(f"{path} belongs to run {header['config']}, not to {self.run_id}")
        for key in ("step", "history", "best_epoch"):
            setattr(self, key, header[key])
        self.best = part(tensors, "best.")
        self.ledger.counts.update(header["ledger"])
        self.session.judge.ledger.counts.update(header["judge_ledger"])
        return tensors, header["own"]


def part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The state that an optimiser keeps for each parameter of its one group, by number and name."""
    return {
        f"{index}.{key}": value
        for index, parameter in enumerate(optimizer.param_groups[0]["params"])
        for key, value in optimizer.state[parameter].items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Undo `optimizer_tensors`; step counters go to the CPU, where optimisers keep them."""
    for index, parameter in enumerate(optimizer.param_groups[0]["params"]):
        saved = part(tensors, f"{index}.")
        optimizer.state[parameter] = {key: value.cpu() if value.ndim == 0 else value for key, value in saved.items()}
