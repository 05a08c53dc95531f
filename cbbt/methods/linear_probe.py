"""The plain linear probe: logistic regression on the shots' features, as in CLIP (Radford et al., ICML 2021).

L2-penalised, by scikit-learn's L-BFGS; no text is used. The inverse weight C of the penalty is
chosen as in CoOp's program `lpclip`: the best of seven powers of ten, then eight times the best of it
and its two neighbours, a power of ten away at first and half as far each time.

Repaired: nothing.

Changed: C is chosen on held-out shots, in at most four folds, and not on as many validation images
as shots (four at most). Features have unit norm, as for all methods here, so that the same C means
another penalty than with CLIP's own features. All of the run's `views` are examples.

What a loss query scores: the method makes none.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from cbbt.adapters import LinearHead
from cbbt.checks import check_ranges, check_types
from cbbt.learning.fitting import Classifier, Fitted
from cbbt.methods.parts.heads import best_constants, shot_numbers

POWERS = (6, 4, 2, 0, -2, -4, -6)  # of ten
HALVINGS = 8
CLIP = 0.316  # CLIP's published C on ImageNet


@dataclass(frozen=True)
class Settings:
    """c: inverse weight of the penalty. None: chosen on held-out shots; with a single shot per class nothing can
    be held out: CLIP's published 0.316."""

    c: float | None = None
    iterations: int = 1000  # of L-BFGS at most

    def __post_init__(self):
        check_types(self)
        check_ranges(self, {"iterations": 1}, positive=() if self.c is None else ("c",))


def fit(box, support, config, session) -> Fitted:
    raw, labels = support.whole()
    features, s, n_classes = F.normalize(raw, dim=-1), config.settings, len(support.class_names)
    folds = (shot_numbers(support.labels) % 4).repeat(len(support.views))
    c = s.c or held_out_c(features, labels, n_classes, folds, s.iterations)
    weight, bias = logistic_regression(features, labels, n_classes, c, s.iterations)
    no_text = torch.zeros_like(weight.T)
    return Fitted(Classifier(no_text, LinearHead(weight, bias), box.logit_scale), learned=weight.numel() + bias.numel())


def logistic_regression(features, labels, n_classes: int, c: float, iterations: int) -> tuple[torch.Tensor, torch.Tensor]:
    """W (E, C) and b (C,) of features (n, E) and labels (n,); a class without a feature is never the most probable."""
    from sklearn.linear_model import LogisticRegression  # takes a second to import, and only this method needs it

    probe = LogisticRegression(C=c, max_iter=iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # with a small penalty the iterations end before convergence
        probe.fit(features.double().cpu().numpy(), labels.cpu().numpy())
    rows, intercepts = probe.coef_, probe.intercept_
    if len(rows) == 1:  # two classes: one row of log odds
        rows, intercepts = np.stack([-rows[0], rows[0]]) / 2, np.array([-intercepts[0], intercepts[0]]) / 2
    weight, bias = torch.zeros(features.shape[1], n_classes), torch.full((n_classes,), -1e3)
    weight[:, probe.classes_], bias[probe.classes_] = torch.from_numpy(rows.T).float(), torch.from_numpy(intercepts).float()
    return weight.to(features.device), bias.to(features.device)


def held_out_c(features, labels, n_classes: int, folds, iterations: int) -> float:
    """The C with the highest accuracy on held-out shots, by powers of ten and then by halving."""
    if not folds.any():
        return CLIP

    @functools.cache
    def logits(power: float) -> torch.Tensor:
        held_out = features.new_empty(len(features), n_classes)
        for fold in folds.unique():
            out = folds == fold
            weight, bias = logistic_regression(features[~out], labels[~out], n_classes, 10**power, iterations)
            held_out[out] = features[out] @ weight + bias
        return held_out

    best = best_constants(((power, logits(power)) for power in POWERS), labels)
    for width in (2.0**-halving for halving in range(HALVINGS)):
        best = best_constants(((power, logits(power)) for power in (best, best - width, best + width)), labels)
    return 10.0**best
