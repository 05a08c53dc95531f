"""TaskRes: a residual on the class text features (Yu et al., CVPR 2023; github.com/geekyutao/TaskRes).

t'_c = normalise(t_c + α x_c) with one trained vector x_c per class, initially zero: the
classifier starts as the zero-shot one. Adam on the cross-entropy of the shots, with one view of
each per pass.

Repaired: nothing. The released code reports the last step and chooses nothing on data; α is set
by hand for one data set.

Changed: it draws new random crops in every pass; here the run's `views` in turn. It adds the
residual to unnormalised text features; a box gives them with unit norm. Its "enhanced base", a
projection of the text trained beforehand on the same shots, is omitted.

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
from cbbt.methods.parts.descent import Descent, cosine_after_warm_up, steps_per_pass
from cbbt.methods.parts.start import start_text
from cbbt.seeding import batch_rows


@dataclass(frozen=True)
class Settings:
    """TaskRes's published constants."""

    alpha: float = 0.5  # 1 on Flowers102
    lr: float = 2e-3  # 2e-4 on ImageNet
    weight_decay: float = 5e-4  # coupled
    batch: int = 256
    passes: int = 200  # over the shots; published: 100 with up to four of each class
    warmup_lr: float = 1e-5  # in the first pass

    def __post_init__(self):
        check_types(self)
        check_ranges(self, {"weight_decay": 0, "warmup_lr": 0, "batch": 1, "passes": 1}, positive=("alpha", "lr"))


def fit(box, support, config, session) -> Fitted:
    steps = config.settings.passes * steps_per_pass(len(support.labels), config.settings.batch)
    return search(box, support, config, session, TaskRes(box, support, config), steps)


class TaskRes(Descent):
    """The training; a step is one batch (see `cbbt.learning.search.Searcher`)."""

    def __init__(self, box, support, config):
        self.text, self.scale = start_text(box, support, config), box.logit_scale
        super().__init__(residual=torch.zeros_like(self.text))
        self.views, self.labels = F.normalize(support.views, dim=-1), support.labels
        self.seed, self.settings = config.seed, config.settings
        s = self.settings
        self.optimizer = torch.optim.Adam(self.tensors.values(), lr=s.lr, weight_decay=s.weight_decay)

    def moved(self, residual: torch.Tensor) -> torch.Tensor:
        """Class features (C, E) with the residual, unit-norm."""
        return F.normalize(self.text + self.settings.alpha * residual, dim=-1)

    def step(self, index: int, steps: int) -> dict:
        s, n = self.settings, len(self.labels)
        number = index // steps_per_pass(n, s.batch)  # of the pass
        rows = batch_rows(self.seed, index, n, s.batch).to(self.labels.device)
        logits = self.scale * self.views[number % len(self.views)][rows] @ self.moved(self.tensors["residual"]).T
        rate = cosine_after_warm_up(s.lr, number / s.passes, 1 / s.passes, s.warmup_lr)
        return self.descend(F.cross_entropy(logits, self.labels[rows]), rate)

    def classifier(self, box, parameters) -> Classifier:
        return Classifier(self.moved(parameters["residual"]), IdentityAdapter(), box.logit_scale)
