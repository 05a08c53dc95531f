"""The cross-modal linear probe (Lin et al., CVPR 2023; github.com/linzhiqiu/cross_modal_adaptation).

A linear head without bias, initialised with the class text features and trained by AdamW on images
and texts: half of a batch are features of shots, the other half features of class texts, each an
example of its class. Logits are τ W f, and W is not normalised again.

Repaired: nothing.

Changed: the released code compares twelve settings of rate, decay and batch on as many validation
images as shots (four at most), for each data set and seed, and keeps the best iteration; here all
seeds share one setting, and the last step is reported. It uses each shot and its mirror image; here
all of the run's `views`. The average of the head with the zero-shot one is omitted.

What a loss query scores: the method makes none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from cbbt.adapters import IdentityAdapter
from cbbt.checks import check_ranges, check_types
from cbbt.learning.fitting import Classifier, Fitted
from cbbt.learning.search import search
from cbbt.methods.parts.descent import Descent, cosine_after_warm_up
from cbbt.methods.parts.start import start_text
from cbbt.seeding import batch_rows, generator_for


@dataclass(frozen=True)
class Settings:
    """The published constants; of several that are compared there, the first."""

    lr: float = 1e-3  # or 1e-4
    weight_decay: float = 0.0  # decoupled; or 0.01, or 1e-4
    batch: int = 8  # half of it images, half texts; or 32
    steps: int = 12800
    warmup_steps: int = 50  # from `warmup_lr` up to `lr`, in even steps
    warmup_lr: float = 1e-5

    def __post_init__(self):
        check_types(self)
        at_least = {"weight_decay": 0, "batch": 2, "steps": 1, "warmup_steps": 0, "warmup_lr": 0}
        check_ranges(self, at_least, positive=("lr",))


def fit(box, support, config, session) -> Fitted:
    return search(box, support, config, session, CrossModal(box, support, config), config.settings.steps)


class CrossModal(Descent):
    """The training; a step is one batch (see `cbbt.learning.search.Searcher`)."""

    def __init__(self, box, support, config):
        self.text, self.scale = start_text(box, support, config), box.logit_scale
        super().__init__(head=self.text)
        raw, self.labels = support.whole()
        self.features, self.seed, self.settings = F.normalize(raw, dim=-1), config.seed, config.settings
        s = self.settings
        self.optimizer = torch.optim.AdamW(self.tensors.values(), lr=s.lr, weight_decay=s.weight_decay)

    def step(self, index: int, steps: int) -> dict:
        s, device = self.settings, self.labels.device
        images = batch_rows(self.seed, index, len(self.labels), s.batch // 2).to(device)
        texts = torch.randperm(len(self.text), generator=generator_for(self.seed, "texts", index))[: s.batch // 2].to(device)
        features = torch.cat([self.features[images], self.text[texts]])
        loss = F.cross_entropy(self.scale * features @ self.tensors["head"].T, torch.cat([self.labels[images], texts]))
        return self.descend(loss, self.rate(index, steps))

    def rate(self, index: int, steps: int) -> float:
        s = self.settings
        if index < s.warmup_steps:
            return s.warmup_lr + (s.lr - s.warmup_lr) * index / s.warmup_steps
        return cosine_after_warm_up(s.lr, index / steps, 0.0, s.lr)

    def classifier(self, box, parameters) -> Classifier:
        return Classifier(parameters["head"], IdentityAdapter(), box.logit_scale)
