"""GDA, "A Hard-to-Beat Baseline" (Wang et al., ICLR 2024; github.com/mrflogs/ICLR24): no training.

The features of a class are modelled as Gaussian, with one covariance for all classes. Bayes' rule
then gives a linear classifier in closed form (`cbbt.methods.parts.heads.gda`), which is added to
the zero-shot one: logits = τ f·t + α (f W + b).

Repaired: the released code chooses α on the whole validation split, and for ImageNet on the
test split; here on held-out shots. It sets its seed once for all numbers of shots, so that except
for one shot its sets are not those that CoOp draws with the same seed; here they are.

Changed: it takes ten random crops of each shot; here all of the run's `views`. A single view of a
single shot per class gives no covariance, which leaves zero-shot.

What a loss query scores: the method makes none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from cbbt.adapters import LinearHead
from cbbt.checks import check_ranges, check_types
from cbbt.learning.fitting import Classifier, Fitted
from cbbt.methods.parts.heads import best_constants, gda, gda_held_out, shot_numbers
from cbbt.methods.parts.start import start_text

ALPHAS = [10.0**k for k in range(-4, 3)]
ONE_SHOT = 1e-3  # what the released code's logs chose for single shots


@dataclass(frozen=True)
class Settings:
    """alpha: weight of the discriminant. None: the one of `ALPHAS`, as published, that classifies held-out shots best;
    with a single shot per class nothing can be held out: `ONE_SHOT`."""

    alpha: float | None = None

    def __post_init__(self):
        check_types(self)
        check_ranges(self, {}, positive=() if self.alpha is None else ("alpha",))


def fit(box, support, config, session) -> Fitted:
    text = start_text(box, support, config)
    raw, labels = support.whole()
    features, alpha = F.normalize(raw, dim=-1), config.settings.alpha
    if alpha is None:
        folds = shot_numbers(support.labels)
        if folds.max() == 1:  # two folds would leave one shot per class and no covariance: hold out shots one by one
            folds = torch.arange(len(folds), device=folds.device)
        alpha = held_out_alpha(features, labels, text, box.logit_scale, folds.repeat(len(support.views)))
    weight, bias = gda(features, labels, len(text))
    return Fitted(Classifier(text, LinearHead(weight, bias, alpha), box.logit_scale), learned=weight.numel() + bias.numel())


def held_out_alpha(features, labels, text, logit_scale: float, folds) -> float:
    """The α with the highest accuracy on shots held out of the discriminant, given class features `text` (C, E)."""
    if not folds.any():
        return ONE_SHOT
    logits, own = logit_scale * features @ text.T, gda_held_out(features, labels, len(text), folds)
    return best_constants(((alpha, logits + alpha * own) for alpha in ALPHAS), labels)
