"""Simultaneous perturbation (SPSA; Spall, IEEE TAC 1992), as ZIP and BlackVIP use it.

All parameters are perturbed at once by entries ±U[½, 1]; two losses give a slope, and
the mean of a few slopes, each divided elementwise by its perturbation, is the estimate
(the family "spsa" of `cbbt.gradients.directions`). With steps k = 1, 2, …

    a_k = a / (k + o)^α        the rate
    c_k = c / k^γ              the size of the perturbation
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from cbbt.gradients.estimators import GradientEstimate, estimate_gradient
from cbbt.seeding import generator_for


@dataclass(frozen=True)
class Gains:
    """The schedule's constants: all positive except o, α and γ, which may be 0."""

    a: float
    c: float
    o: float = 1.0
    alpha: float = 0.4
    gamma: float = 0.1

    def rate(self, k: int) -> float:
        """a_k for k ≥ 1."""
        return self.a / (k + self.o) ** self.alpha

    def size(self, k: int) -> float:
        """c_k for k ≥ 1."""
        return self.c / k**self.gamma


def spsa_gradient(
    loss: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, averages: int, size: float, seed: int, k: int
) -> GradientEstimate:
    """The estimate of step k at `x` (d,): 2 · `averages` losses, perturbations of size c_k.

    `loss` maps (N, d) to (N,). Raises FloatingPointError for a loss that is not finite.
    """
    generator = generator_for(seed, "perturbations", k)
    return estimate_gradient(loss, x, q=averages, epsilon=size, directions="spsa", differences="two-sided", generator=generator)
