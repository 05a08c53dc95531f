"""What a method is given, and what it gives back.

`Support` holds the shots and nothing of the test split; `Session` says how a fit
is carried out; `Classifier` and `Fitted` are the outcome. Every file of
`cbbt.methods` has one function `fit(box, support, config, session) -> Fitted`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import torch
from torch import nn


@dataclass
class Support:
    """What a method may learn from: the shots, never the test split.

    views: raw features (V, n, E), V augmented views of n training shots.
    labels: int64 (n,). val_features: raw (m, E). val_labels: int64 (m,).
    """

    views: torch.Tensor
    labels: torch.Tensor
    val_features: torch.Tensor
    val_labels: torch.Tensor
    class_names: tuple[str, ...]
    template: str


@dataclass
class Classifier:
    """Class text features (C, E), an adapter, and the model's logit scale τ."""

    text: torch.Tensor
    adapter: nn.Module
    logit_scale: float

    @torch.no_grad()
    def logits(self, raw: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) of raw image features (B, E)."""
        features, offsets = self.adapter(raw)
        logits = self.logit_scale * features @ self.text.T
        return logits if offsets is None else logits + offsets

    def accuracy(self, raw: torch.Tensor, labels: torch.Tensor) -> float:
        """Top-1 accuracy in percent; NaN for an empty split."""
        if not len(labels):
            return math.nan
        return 100.0 * (self.logits(raw).argmax(dim=1) == labels).double().mean().item()


@dataclass
class Fitted:
    """What a method returns: the last step's classifier, the one best on validation
    (the earliest, if several), its epoch, and one history row per epoch."""

    last: Classifier
    best_val: Classifier | None = None
    best_epoch: int | None = None
    history: list[dict] = field(default_factory=list)


@dataclass
class Session:
    """How a fit is carried out; nothing here changes its result.

    judge: a handle on the box whose ledger counts monitoring apart from fitting.
    observe: called with each epoch's classifier; what it returns is written into
        the history beside the fit's own columns, and never read by the fit.
    checkpoint: file to save to and resume from, or None.
    save_every: seconds between checkpoints. progress: show a progress bar.
    """

    judge: object
    observe: Callable[[Classifier], dict] = lambda classifier: {}
    checkpoint: Path | None = None
    save_every: float = 5.0
    progress: bool = False
