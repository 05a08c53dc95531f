"""ProKeR: kernel ridge regression towards the zero-shot classifier (Bendou et al., CVPR 2025; arXiv 2501.11175).

Of all functions in a Gaussian kernel's space, the one that fits the shots' labels while staying
close to the zero-shot classifier: with φ(x) the cosines of x and the class text, S the shots
and Y their one-hot labels,

    logits = τ [φ(x) + K(x, S) (K(S, S)/λ + I)⁻¹ (Y − φ(S))],   K(x, y) = exp(−β (1 − cos(x, y)))

in closed form (`cbbt.methods.parts.heads.kernel_ridge`); no training.

Repaired: the released code chooses β and λ on the whole validation split, or for all data sets on
ImageNet, whose validation split is its test split there; here on held-out shots.

Changed: ten random crops of each shot; here all of the run's `views`. The candidate values cover the
published ranges in geometric, not in even steps. The released code lacks the factor τ, which changes
no accuracy. Memory grows with the square of shots times views.

What a loss query scores: the method makes none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from cbbt.adapters import KernelHead
from cbbt.checks import check_ranges, check_types
from cbbt.learning.fitting import Classifier, Fitted
from cbbt.methods.parts.heads import best_constants, kernel_ridge, kernel_ridge_held_out, shot_numbers
from cbbt.methods.parts.start import start_text

BETAS = [0.1 * 10 ** (k / 5) for k in range(11)]  # 0.1 to 10
RIDGES = [0.001 * 10 ** (k / 5) for k in range(21)]  # 0.001 to 10
ONE_SHOT = 3.0, 0.05  # published β and λ for one shot


@dataclass(frozen=True)
class Settings:
    """beta, ridge: β and λ. Both None: the pair of `BETAS` and `RIDGES` that classifies held-out shots best; with a
    single shot per class nothing can be held out: `ONE_SHOT`."""

    beta: float | None = None
    ridge: float | None = None

    def __post_init__(self):
        check_types(self)
        if (self.beta is None) != (self.ridge is None):
            raise ValueError(f"beta and ridge must both be given or both be None, got {self.beta} and {self.ridge}")
        check_ranges(self, {}, positive=() if self.beta is None else ("beta", "ridge"))


def fit(box, support, config, session) -> Fitted:
    text = start_text(box, support, config)
    raw, labels = support.whole()
    features, beta, ridge = F.normalize(raw, dim=-1), config.settings.beta, config.settings.ridge
    base = features @ text.T
    if beta is None:
        folds = shot_numbers(support.labels).repeat(len(support.views))
        beta, ridge = held_out_constants(features, labels, base, box.logit_scale, folds)
    coefficients = kernel_ridge(features, labels, base, beta, ridge)
    head = KernelHead(features, coefficients, beta, box.logit_scale)
    return Fitted(Classifier(text, head, box.logit_scale), learned=coefficients.numel())


def held_out_constants(features, labels, base, logit_scale: float, folds) -> tuple[float, float]:
    """The pair (β, λ) with the highest accuracy on shots held out of the regression from the cosines `base` (n, C)."""
    if not folds.any():
        return ONE_SHOT
    candidates = (
        ((beta, ridge), logit_scale * scores)
        for beta in BETAS
        for ridge, scores in zip(RIDGES, kernel_ridge_held_out(features, labels, base, beta, RIDGES, folds))
    )
    return best_constants(candidates, labels)
