"""Evaluation of a fitted classifier beyond accuracy: confusions, calibration, and transfer to other test sets.

A part transfers if it does not depend on the classes: a learned prompt, and whatever changes
images or their features (an adapter marked `class_free`). Parts with a row for each class do
not transfer: heads, caches, class-specific contexts. On the same classes, or a subset of
them, every part is used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from cbbt.adapters import IdentityAdapter
from cbbt.learning.fitting import Classifier, Split, accuracy_of

BINS = 15
LOGIT_SCALES = [2 ** (k / 2) for k in range(21)]  # 1 … 1,024, by √2


def expected_calibration_error(logits: torch.Tensor, labels: torch.Tensor, bins: int = BINS) -> float:
    """Σ_b (n_b / n) |accuracy_b − confidence_b| in percent, over `bins` equal bins of the confidence.

    The confidence is the largest softmax probability of logits (n, C), n ≥ 1; a bin holds
    the values above its lower bound up to its upper one. Source: Guo et al., ICML 2017.
    """
    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
    hits = (predicted == labels).double()
    number = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64, device=logits.device).index_add(0, number, hits - confidence)
    return 100.0 * gaps.abs().sum().item() / len(labels)


def confusion_matrix(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Numbers of images (C, C), int64: true classes in rows, answers in columns. logits: (n, C). labels: int64 (n,)."""
    classes = logits.shape[1]
    return torch.bincount(labels * classes + logits.argmax(dim=1), minlength=classes**2).view(classes, classes)


def fitting_logit_scale(text: torch.Tensor, raw: torch.Tensor, labels: torch.Tensor) -> float:
    """The τ of `LOGIT_SCALES` at which class text (C, E) fits the shots best, by cross-entropy.

    raw: features (n, E). labels: int64 (n,). For a service whose own τ is unknown.
    Without shots CLIP's limit of 100: no prediction depends on it.
    """
    if not len(labels):
        return 100.0
    cosines = F.normalize(raw, dim=-1) @ text.T
    return min(LOGIT_SCALES, key=lambda scale: F.cross_entropy(scale * cosines, labels).item())


def judge_elsewhere(classifier: Classifier, target, split: Split, box, start: torch.Tensor) -> dict:
    """Scores of `classifier` on the images `split` of a `cbbt.data.targets.Target`, and which of its parts were used.

    start: text (C', E) of the target's classes before any tuning, for classifiers whose prompt does not transfer.
    Returns accuracy and ece in percent, and travels: "all", "nothing", or the learned parts that transfer.
    """
    travels, rows = ["all"], slice(None)
    if target.rows is None:
        classifier, travels = for_other_classes(classifier, target, box, start)
    else:
        rows = list(target.rows)
    logits = classifier.logits_on(split, box)[:, rows]
    return {
        "accuracy": accuracy_of(logits, split.labels),
        "ece": expected_calibration_error(logits, split.labels),
        "travels": ", ".join(travels) or "nothing",
    }


def for_other_classes(classifier: Classifier, words, box, start: torch.Tensor) -> tuple[Classifier, list[str]]:
    """A classifier for other classes, with the parts of `classifier` that do not depend on its classes; names of these parts.

    words: has the `class_names` and the `template`. A head on the logits is left out.
    """
    free = getattr(classifier.adapter, "class_free", False)
    parts = {
        "prompt": classifier.retext is not None,
        "image prompt": classifier.image_prompt is not None,
        "adapter": free and not isinstance(classifier.adapter, IdentityAdapter),
    }
    text = classifier.retext(box, words) if parts["prompt"] else start
    adapter = classifier.adapter if free else IdentityAdapter()
    other = Classifier(text, adapter, classifier.logit_scale, image_prompt=classifier.image_prompt)
    return other, [name for name, used in parts.items() if used]
