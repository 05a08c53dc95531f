"""A method's input and output.

`Support` holds the shots and nothing of the test split; `Session` says how a fit
is carried out; `Classifier` and `Fitted` are the result. Every file of
`cbbt.methods` has one function `fit(box, support, config, session) -> Fitted`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from cbbt.box.access import Sealed
from cbbt.data.pixels import Pixels


@dataclass
class Split:
    """Images to evaluate on: raw features (m, E), labels int64 (m,), and the pixels,
    which classifiers that change the images need."""

    features: torch.Tensor
    labels: torch.Tensor
    pixels: Pixels | None = None


@dataclass
class Support:
    """What a method may learn from: the shots, never the test split.

    views: raw features (V, n, E), V augmented views of n training shots.
    labels: int64 (n,). val_features: raw (m, E). val_labels: int64 (m,).
    pixels, val_pixels: the same images before encoding, not augmented.
    """

    views: torch.Tensor
    labels: torch.Tensor
    val_features: torch.Tensor
    val_labels: torch.Tensor
    class_names: tuple[str, ...]
    template: str
    pixels: Pixels | None = None
    val_pixels: Pixels | None = None

    @property
    def val(self) -> Split:
        return Split(self.val_features, self.val_labels, self.val_pixels)

    def whole(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Every view of every shot: raw features (V · n, E) and labels (V · n,)."""
        return self.views.flatten(0, 1), self.labels.repeat(len(self.views))


@dataclass(frozen=True)
class ContextPrompt:
    """A learned context (M, D), usable with any classes."""

    context: torch.Tensor
    position: str = "end"

    @classmethod
    def of(cls, context: torch.Tensor | None, position: str) -> ContextPrompt | None:
        """The prompt of a context's current value; None without a context, or with one per class (C, M, D)."""
        return None if context is None or context.ndim == 3 else cls(context.detach().clone(), position)

    def __call__(self, box, words) -> torch.Tensor:
        return box.encode_prompts(self.context[None], words.class_names, self.position)[0]


@dataclass
class Classifier:
    """Class text features (C, E), an adapter, and the model's logit scale τ.

    head: a module (B, C) → (B, C) on the logits, or None.
    text_weight: weight of the similarity logits relative to those that the adapter adds, ≥ 0.
    image_prompt: (box, pixels (B, 3, H, W)) → raw features (B, E), for methods that
        change the images; None if the plain image features are used.
    retext: (box, words) → text (C', E) of a learned prompt for other classes, where `words`
        has their `class_names` and the `template`; None if no prompt was learned, or only
        one for the classes it was learned on.
    """

    text: torch.Tensor
    adapter: nn.Module
    logit_scale: float
    head: nn.Module | None = None
    text_weight: float = 1.0
    image_prompt: Callable | None = None
    retext: Callable | None = None

    @torch.no_grad()
    def logits(self, raw: torch.Tensor, box=None) -> torch.Tensor:
        """Logits (B, C) of raw image features (B, E). If the text is sealed, `box` is queried for them."""
        features, offsets = self.adapter(raw)
        if isinstance(self.text, Sealed):
            logits = self.text_weight * self.text.classify(features, box)
        else:
            logits = self.logit_scale * self.text_weight * features @ self.text.T
        if offsets is not None:
            logits = logits + offsets
        return logits if self.head is None else self.head(logits)

    def accuracy(self, raw: torch.Tensor, labels: torch.Tensor) -> float:
        """Top-1 accuracy in percent of raw image features; see `accuracy_of`."""
        return accuracy_of(self.logits(raw), labels)

    def accuracy_on(self, split: Split, box) -> float:
        """Top-1 accuracy in percent; with an image prompt, `box` encodes the split again."""
        return accuracy_of(self.logits_on(split, box), split.labels)

    def logits_on(self, split: Split, box) -> torch.Tensor:
        """Logits (m, C) of a split; with an image prompt, `box` encodes it again."""
        raw = split.features
        if self.image_prompt is not None and len(split.labels):
            raw = torch.cat([self.image_prompt(box, batch.to(box.device)) for batch in split.pixels.batches()])
        return self.logits(raw, box)


def accuracy_of(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Top-1 accuracy in percent; NaN for an empty split. Raises FloatingPointError for logits that are not finite."""
    if not len(labels):
        return math.nan
    if not torch.isfinite(logits).all():
        raise FloatingPointError("the classifier's logits are not finite numbers")
    return 100.0 * (logits.argmax(dim=1) == labels).double().mean().item()


@dataclass
class Fitted:
    """What a method returns: the last step's classifier, the best on validation
    (the earliest, if several), its epoch, one history row per epoch, and the number of
    learned parameters."""

    last: Classifier
    best_val: Classifier | None = None
    best_epoch: int | None = None
    history: list[dict] = field(default_factory=list)
    learned: int = 0


@dataclass
class Session:
    """How a fit is carried out; nothing here changes its result.

    judge: a handle on the box whose ledger counts monitoring separately from fitting.
    observe: called with each epoch's classifier; what it returns is added to the
        history's columns and never read by the fit.
    checkpoint: file to save to and resume from, or None.
    save_every: seconds between checkpoints. progress: show a progress bar.
    """

    judge: object
    observe: Callable[[Classifier], dict] = lambda classifier: {}
    checkpoint: Path | None = None
    save_every: float = 5.0
    progress: bool = False
