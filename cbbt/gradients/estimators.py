"""Zeroth-order gradient estimators: gradients from losses alone.

Every estimator here has the form

    ĝ = (1/q) Σ_i  Δ_i w_i,     Δ_i = [L(x + ε u_i) − L(x)] / ε   (forward)
                                or    [L(x + ε u_i) − L(x − ε u_i)] / 2ε   (two-sided)

with *probes* u_i, along which the loss is queried, and *readouts* w_i, from a family
of `cbbt.gradients.directions`. CBBT (Guo et al., 2023, arXiv 2312.15901) draws u uniformly on
the unit sphere and uses forward differences; the unbiased readout is then w = d · u.
The released code has w = u / ε instead, which agrees only while ε = 1/d.

The effect of curvature: on a quadratic L with Hessian H, a forward slope is off by
(ε/2) uᵀHu, so the estimate from given probes is off by O(ε). As uᵀHu is even in u, this
adds variance for families symmetric about zero, and bias for axes queried once each.
Two-sided slopes are exact on quadratics, and off by O(ε²) elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

import torch

from cbbt.gradients.directions import DIRECTIONS, Draw

DIFFERENCES = ("forward", "two-sided")
FACTORS = ("dimension", "released")


@dataclass(frozen=True)
class GradientEstimate:
    """An estimated gradient and what it cost.

    gradient: like x. base_loss: L(x); with two-sided differences the mean of all
    losses, which differs from it by O(ε²). losses: (q,) forward, (2, q) two-sided.
    epsilon: step used. queries: number of loss evaluations.
    """

    gradient: torch.Tensor
    base_loss: float
    losses: torch.Tensor
    epsilon: float
    queries: int


def default_epsilon(dimension: int) -> float:
    """The step of CBBT: max(1/d, 10⁻³)."""
    return max(1.0 / dimension, 1e-3)


def estimate_gradient(
    loss: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    q: int = 256,
    epsilon: float | None = None,
    directions: str | torch.Tensor | Draw = "sphere",
    differences: str = "forward",
    factor: str = "dimension",
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> GradientEstimate:
    """Estimate ∇L(x) from q + 1 (forward) or 2q (two-sided) values of L.

    Args:
        loss: maps points (N, *x.shape) to losses (N,).
        x: the point, any shape with d elements. q: number of directions, ≥ 1.
        epsilon: step length, > 0; max(1/d, 10⁻³) if None.
        directions: a name in `DIRECTIONS`; a tensor (q, *x.shape) of unit probes
            (which then sets q); or a function (q, d, generator) → (probes, readouts),
            such as `cbbt.gradients.directions.subspace` and `guided` return.
        differences: "forward", as in CBBT, or "two-sided".
        factor: "dimension" (the family's own readouts, unbiased; d·u for unit probes)
            or "released" (u/ε, for unit probes only).
        generator: CPU generator of the directions; required unless they are given.
        chunk: points per call of `loss`; all at once if None. Changes no result.

    Raises ValueError for a bad argument, FloatingPointError for a loss that is
    not finite. Source: CBBT §3; factor and ε of github.com/guozix/cbbt.
    """
    x = x.detach()
    dimension = x.numel()
    if not dimension or not x.is_floating_point():
        raise ValueError(f"x must hold floating-point numbers, got {dimension} of {x.dtype}")
    if epsilon is None:
        epsilon = default_epsilon(dimension)
    if not 0 < epsilon < float("inf"):
        raise ValueError(f"epsilon must be positive and finite, got {epsilon}")
    if differences not in DIFFERENCES:
        raise ValueError(f"differences {differences!r} is unknown, choose from {', '.join(DIFFERENCES)}")
    if factor not in FACTORS:
        raise ValueError(f"factor {factor!r} is unknown, choose from {', '.join(FACTORS)}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1 point, got {chunk}")
    probes, readouts = _directions(directions, q, x, generator)
    q = len(probes)
    if factor == "released":
        if not torch.allclose(probes.norm(dim=1), torch.ones(q).to(probes), atol=1e-3):
            raise ValueError("factor 'released' is defined for unit probes, not for this family of directions")
        readouts = probes / epsilon

    steps = epsilon * probes.to(x).view(q, *x.shape)
    offsets = [torch.zeros_like(steps[:1]), steps] if differences == "forward" else [steps, -steps]
    points = x + torch.cat(offsets)
    losses = torch.cat([_ask(loss, part) for part in points.split(chunk or len(points))])
    if not losses.isfinite().all():
        raise FloatingPointError(f"{int((~losses.isfinite()).sum())} of {len(losses)} losses are not finite")

    # The differences are small compared with the losses: compute them in double precision.
    wide = losses.double()
    if differences == "forward":
        slopes, base, kept = (wide[1:] - wide[0]) / epsilon, wide[0], losses[1:]
    else:
        slopes, base, kept = (wide[:q] - wide[q:]) / (2 * epsilon), wide.mean(), losses.view(2, q)
    gradient = (slopes @ readouts.to(slopes)) / q
    return GradientEstimate(gradient.to(x).view(x.shape), float(base), kept, float(epsilon), len(points))


def _ask(loss, points: torch.Tensor) -> torch.Tensor:
    """Losses (N,) at points (N, …)."""
    values = loss(points)
    if tuple(values.shape) != (len(points),):
        raise ValueError(f"loss must map ({len(points)}, …) points to ({len(points)},), got {tuple(values.shape)}")
    return values.detach()


def _directions(directions, q, x, generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Probes and readouts, each (q, d)."""
    dimension = x.numel()
    if isinstance(directions, torch.Tensor):
        if directions.shape[1:] != x.shape or not len(directions):
            raise ValueError(f"directions must be (q, {', '.join(map(str, x.shape))}), got {tuple(directions.shape)}")
        probes = directions.reshape(len(directions), dimension)
        lengths = probes.norm(dim=1)
        if not (lengths.isfinite() & (lengths > 0)).all():
            raise ValueError("directions must be finite and nonzero")
        return probes, dimension * probes
    if not isinstance(q, Integral) or q < 1:
        raise ValueError(f"q, the number of directions, must be a whole number ≥ 1, got {q!r}")
    if isinstance(directions, str):
        if directions not in DIRECTIONS:
            raise ValueError(f"directions {directions!r} is unknown, choose from {', '.join(DIRECTIONS)}")
        directions = DIRECTIONS[directions]
    if generator is None:
        raise ValueError("drawing directions needs a torch.Generator: results must be reproducible")
    return directions(q, dimension, generator)
