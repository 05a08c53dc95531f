"""Heads in closed form: Gaussian discriminant analysis and kernel ridge regression.

Pure functions on unit-norm features (n, E) and labels (n,), computed in double precision and
returned in the features' type. Each closed form comes with its prediction for held-out shots,
by which its constants are chosen (`best_constants`): the k-th shots of all classes are held
out together, with all views of each, so that no class has one shot more than another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F


def shot_numbers(labels: torch.Tensor) -> torch.Tensor:
    """The number of each shot within its class, from 0; int64 (n,)."""
    return (labels[:, None] == labels).tril(-1).sum(dim=1)


def gda(features: torch.Tensor, labels: torch.Tensor, n_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """W (E, C) and b (C,) of Gaussian classes with one covariance: logits f W + b (Wang et al., ICLR 2024).

    The precision is shrunk as in the released code, P = E·((N − 1) Σ + tr(Σ) I)⁻¹ for the covariance Σ of
    N class-centred features; W = P µᵀ and b_c = ln(1/C) − ½ µ_cᵀ P µ_c. If no feature differs from its
    class's mean (a single view of a single shot per class), Σ is undefined and W = 0. A class
    without features gets the mean of all.
    """
    x, members = features.double(), F.one_hot(labels, n_classes).double()
    counts = members.sum(dim=0)[:, None]
    means = torch.where(counts > 0, members.T @ x / counts.clamp(min=1), x.mean(dim=0))
    centred = x - means[labels]
    scatter = centred.T @ centred  # (N − 1) Σ
    trace = scatter.trace() / max(1, len(x) - 1)
    weight = torch.zeros_like(means.T)
    if trace > 0:
        shrunk = scatter + trace * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        weight = x.shape[1] * torch.linalg.solve(shrunk, means.T)
    bias = -0.5 * (means * weight.T).sum(dim=1) - torch.tensor(n_classes).log()
    return weight.to(features.dtype), bias.to(features.dtype)


def gda_held_out(features: torch.Tensor, labels: torch.Tensor, n_classes: int, folds: torch.Tensor) -> torch.Tensor:
    """Logits f W + b (n, C) of each feature from a `gda` without its fold; folds: int64 (n,), at least two of them."""
    logits = features.new_empty(len(features), n_classes)
    for fold in folds.unique():
        held = folds == fold
        weight, bias = gda(features[~held], labels[~held], n_classes)
        logits[held] = features[held] @ weight + bias
    return logits


def kernel(first: torch.Tensor, second: torch.Tensor, beta: float) -> torch.Tensor:
    """exp(−β(1 − cos)) of unit-norm features (n, E) and (m, E)."""
    return (-beta * (1 - first @ second.T)).exp()


def kernel_ridge(features, labels, base: torch.Tensor, beta: float, ridge: float) -> torch.Tensor:
    """Coefficients A (n, C) of the regression from a base classifier to the labels: base + K(x, S) A (ProKeR).

    A = (K/λ + I)⁻¹ (Y − base), as in the released code: λ times those of the ridge regression with penalty λ,
    so that λ is also the weight relative to the base. Takes n² numbers and n³ operations.

    Args:
        base: (n, C) scores of the base classifier on the scale of the labels, 0 to 1; ProKeR's are cosines with
            the class text.
        beta: sharpness of the kernel. ridge: λ > 0.
    """
    x, residual = features.double(), _residual(labels, base)
    gram = kernel(x, x, beta) / ridge
    gram.diagonal().add_(1)
    return torch.cholesky_solve(residual, torch.linalg.cholesky(gram)).to(features.dtype)


def kernel_ridge_held_out(features, labels, base, beta: float, ridges: Iterable[float], folds) -> Iterator[torch.Tensor]:
    """For each λ: base + K A (n, C) of each feature from a `kernel_ridge` without its fold, all λ from one decomposition.

    With G = (K + λI)⁻¹ and residuals r, the error on rows B of a regression without them is
    G_BB⁻¹ (G r)_B: no regression is repeated.
    """
    x, residual = features.double(), _residual(labels, base)
    values, vectors = torch.linalg.eigh(kernel(x, x, beta))
    blocks = [(folds == fold).nonzero()[:, 0] for fold in folds.unique()]
    turned = vectors.T @ residual
    for ridge in ridges:
        inverse = 1 / (values.clamp(min=0) + ridge)
        logits = base.double()
        for rows in blocks:
            block = vectors[rows] * inverse
            missed = torch.linalg.solve(block @ vectors[rows].T, block @ turned)
            logits[rows] += ridge * (residual[rows] - missed)
        yield logits.to(base.dtype)


def best_constants(candidates: Iterable[tuple[object, torch.Tensor]], labels: torch.Tensor):
    """Of pairs (constants, logits (n, C) of held-out shots) the constants with the highest accuracy; ties go to the
    lower cross-entropy, then to the earlier pair."""

    def quality(pair) -> tuple[float, float]:
        logits = pair[1]
        return (logits.argmax(dim=1) == labels).double().mean().item(), -F.cross_entropy(logits, labels).item()

    return max(candidates, key=quality)[0]


def _residual(labels: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    return F.one_hot(labels, base.shape[1]).double() - base.double()
