"""Shared by methods that train a few tensors on the shots' features, by exact gradients and without a query."""

from __future__ import annotations

import math

import torch
from torch import nn

from cbbt.learning.progress import optimizer_tensors, part, restore_optimizer


class Descent:
    """Named tensors that go down a loss: the part of a `cbbt.learning.search.Searcher` that is the same for all.

    A method sets `optimizer`, which may hold some of the `tensors` or all, and writes `step` and `classifier`.
    """

    cost: dict[str, int] = {}
    optimizer: torch.optim.Optimizer

    def __init__(self, **tensors: torch.Tensor):
        # Contiguous, as they come back from a checkpoint: products of other layouts differ in the last bits.
        self.tensors = {
            name: nn.Parameter(tensor.detach().clone(memory_format=torch.contiguous_format)) for name, tensor in tensors.items()
        }

    def descend(self, loss: torch.Tensor, rate: float) -> dict:
        """One step of the optimiser; the gradients of all tensors are those of this loss."""
        for tensor in self.tensors.values():
            tensor.grad = None
        loss.backward()
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        return {"train_loss": loss.item()}

    def parameters(self) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.tensors.items()}

    def state(self) -> dict[str, torch.Tensor]:
        return self.parameters() | {f"moments.{key}": value for key, value in optimizer_tensors(self.optimizer).items()}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        for name, tensor in self.tensors.items():
            tensor.data = state[name]
        restore_optimizer(self.optimizer, part(state, "moments."))


def steps_per_pass(n: int, batch: int) -> int:
    """Whole batches in n rows, and at least one."""
    return max(1, n // batch)


def cosine_after_warm_up(rate: float, done: float, warm: float, first: float) -> float:
    """`first` until the part `warm` of the training, then the cosine from `rate` to 0; `done` in [0, 1)."""
    return min(rate, first) if done < warm else rate * (1 + math.cos(math.pi * (done - warm))) / 2
