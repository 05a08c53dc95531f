"""Gradient descent for methods that train a few tensors on the shots' features, without a query."""

from __future__ import annotations

import math

import torch
from torch import nn

from cbbt.learning.progress import optimizer_tensors, part, restore_optimizer


class Descent:
    """Named tensors trained on a loss: the common part of such `cbbt.learning.search.Searcher`s.

    A method sets `optimizer`, for some or all of the `tensors`, and defines `step` and `classifier`.
    """

    cost: dict[str, int] = {}
    optimizer: torch.optim.Optimizer

    def __init__(self, **tensors: torch.Tensor):
        # Contiguous, as a checkpoint restores them: products in other layouts differ in the last bits.
        self.tensors = {
            name: nn.Parameter(tensor.detach().clone(memory_format=torch.contiguous_format)) for name, tensor in tensors.items()
        }

    def descend(self, loss: torch.Tensor, rate: float) -> dict:
        """One step of the optimiser, with the gradients of this loss."""
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
    """Number of full batches in n rows, at least one."""
    return max(1, n // batch)


def cosine_after_warm_up(rate: float, done: float, warm: float, first: float) -> float:
    """`first` for the fraction `warm` of the training, then a cosine from `rate` to 0; `done` in [0, 1)."""
    return min(rate, first) if done < warm else rate * (1 + math.cos(math.pi * (done - warm))) / 2
