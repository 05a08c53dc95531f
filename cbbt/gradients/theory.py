"""Expected quality of an estimated gradient on a linear function, in closed form.

For Gaussian directions the squared cosine between estimate and gradient follows exactly
a Beta law: write ĝ = (1/q) UᵀU g with U (q, d) standard normal and take g along
the first axis, z = U g/‖g‖. Then ĝ's component along g is zᵀz/q and its others are
zᵀZ_j/q with columns Z_j independent of z, so that

    cos² = χ²_q / (χ²_q + χ²_{d−1})  ~  Beta(q/2, (d − 1)/2).

The other independent families follow the same law with an effective number of
directions, `effective_directions`. Orthonormal frames have a law of their own.
All means are over directions and, where it matters, over g of uniform direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, sqrt

import lazy_loader
import numpy as np
import torch

stats = lazy_loader.load("scipy.stats", suppress_warning=True)

FRAMES = ("coordinate", "orthogonal")


@dataclass(frozen=True)
class Expected:
    """Means on a linear function: cosine, cosine², and √(E‖ĝ‖²)/‖g‖."""

    cosine: float
    squared_cosine: float
    norm_ratio: float


def effective_directions(q: int, dimension: int, directions: str) -> float:
    """The number of Gaussian directions with the same mean squared cosine as q of this family.

    sphere, rademacher: from the eigenvalues of the Gram matrix of the directions;
    exact for q ≤ 2, for d = 2 (sphere) and as q → ∞, otherwise to first order in 1/d.
    spsa: to leading order in 1/d. gaussian: q.
    """
    if directions in ("sphere", "rademacher"):
        between = (q - 2) * (dimension - 2) / ((q + 2) * dimension**2)
        return 1 + (q - 1) * dimension / max(dimension - 1, 1) * (1 + between)
    if directions == "spsa":
        return (6 * q + 1) / 7
    return q


def relative_variance(q: int, dimension: int, directions: str) -> float:
    """E‖ĝ − g‖²/‖g‖² of a family of `cbbt.gradients.directions.DIRECTIONS`; exact."""
    if directions in FRAMES:
        rest = q % dimension
        return rest * (dimension - rest) / q**2
    return {"sphere": dimension - 1, "rademacher": dimension - 1, "gaussian": dimension + 1, "spsa": 7 / 6 * (dimension - 1)}[
        directions
    ] / q


def expected(q: int, dimension: int, directions: str = "sphere") -> Expected:
    """Cosine, cosine² and norm ratio of a family of `cbbt.gradients.directions.DIRECTIONS`.

    Raises KeyError for an unknown family.
    """
    norm_ratio = sqrt(1 + relative_variance(q, dimension, directions))
    if directions in FRAMES:
        cosines = _frame_cosines(q, dimension)
        return Expected(float(cosines.mean()), float((cosines**2).mean()), norm_ratio)
    effective = effective_directions(q, dimension, directions)
    cosine = beta_cosine(effective, dimension - 1)
    if directions == "spsa":  # its cosine can be negative: readouts are not the probes
        cosine *= sqrt(6 * q / (6 * q + 1))
    return Expected(cosine, effective / (effective + dimension - 1), norm_ratio)


def expected_with_noise(q: int, dimension: int, noise: float) -> Expected:
    """Like `expected` for the sphere, if every slope has an independent error.

    noise: error variance of a slope times d/‖g‖², which is 1 when error and signal
    are equally large. It adds d · noise to the d − 1 directions of pure error.
    """
    effective, spread = effective_directions(q, dimension, "sphere"), dimension - 1 + dimension * noise
    ratio = sqrt((q + spread) / q)
    return Expected(beta_cosine(effective, spread), effective / (effective + spread), ratio)


def expected_in_subspace(q: int, size: int, captured: float) -> Expected:
    """Directions in a subspace of `size` dimensions that holds the fraction `captured` of ‖g‖²."""
    inside = expected(q, size, "sphere")
    share = sqrt(captured)
    return Expected(share * inside.cosine, captured * inside.squared_cosine, share * inside.norm_ratio)


def expected_guided(q: int, past: torch.Tensor, gradient: torch.Tensor, mixing: float) -> Expected:
    """Guided directions for one gradient (d,), given past gradients (k, d); to leading order."""
    count, dimension = past.shape
    unit = (gradient / gradient.norm()).double()
    along = torch.linalg.lstsq(past.T.double(), unit[:, None]).solution[:, 0] @ past.double()
    largest = mixing / dimension + (1 - mixing) / count
    image = mixing / dimension * unit + (1 - mixing) / count * along  # Σg
    variance, square = float(unit @ image), float(image @ image)  # gᵀΣg, ‖Σg‖²
    squared_cosine = q * variance**2 / ((q - 1) * square + variance)
    ratio = sqrt(square + (variance + square) / q) / largest
    # For few directions cos² is proportional to χ²_q, for many it is constant.
    shape = sqrt(2 / q) * exp(lgamma((q + 1) / 2) - lgamma(q / 2))
    return Expected(shape * sqrt(squared_cosine), squared_cosine, ratio)


def beta_cosine(count: float, others: float) -> float:
    """Mean of √B for B ~ Beta(count/2, others/2)."""
    a, b = count / 2, others / 2
    if b == 0:
        return 1.0
    return exp(lgamma(a + 0.5) - lgamma(a) + lgamma(a + b) - lgamma(a + b + 0.5))


def _frame_cosines(q: int, dimension: int, points: int = 2000) -> np.ndarray:
    """Equally likely cosines for whole frames and a rest: ĝ ∝ whole · g + P g, P of rank rest."""
    whole, rest = divmod(q, dimension)
    if rest == 0:
        return np.ones(1)
    # ‖Pg‖²/‖g‖² at its quantiles
    share = stats.beta(rest / 2, (dimension - rest) / 2).ppf((np.arange(points) + 0.5) / points)
    return (whole + share) / np.sqrt(whole**2 + 2 * whole * share + share)
