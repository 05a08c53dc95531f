"""ZS-LP and CLAP: a linear probe that starts from the text (Silva-Rodríguez et al., CVPR 2024; github.com/jusiro/CLAP).

One prototype w_c per class, initialised at its text feature t_c, with logits τ cos(f, w_c). ZS-LP
trains them by SGD on the cross-entropy of the shots. CLAP also pulls them towards the text,

    loss = CE + mean_c λ_c ‖w_c − t_c‖²

where λ_c is the mean probability that the zero-shot classifier gives to class c on its shots: what
it knows is kept. Neither chooses anything on validation.

Repaired: nothing. CLAP's outer loop, which would adapt λ, does not run under the published
command, and is omitted.

Changed: twenty random crops of each shot; here all of the run's `views`, of which a pass sees
as many as there are shots. Its text features have their own length L; a box gives them with
unit norm, which is as if the rate were L² times as large and the penalty 1/L² times.

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
    """The published constants shared by both."""

    lr: float = 0.1
    momentum: float = 0.9
    batch: int = 256
    passes: int = 300
    warmup_lr: float = 1e-5  # in the first pass

    def __post_init__(self):
        check_types(self)
        check_ranges(self, {"momentum": 0, "warmup_lr": 0, "batch": 1, "passes": 1}, positive=("lr",))


@dataclass(frozen=True)
class ClapSettings(Settings):
    """CLAP's further constants."""

    penalty: float = 1.0  # factor of the λ_c

    def __post_init__(self):
        super().__post_init__()
        check_ranges(self, {}, positive=("penalty",))


def fit(box, support, config, session) -> Fitted:
    kind = Clap if isinstance(config.settings, ClapSettings) else ZeroShotProbe
    steps = config.settings.passes * steps_per_pass(len(support.labels), config.settings.batch)
    return search(box, support, config, session, kind(box, support, config), steps)


class ZeroShotProbe(Descent):
    """ZS-LP; a step is one batch (see `cbbt.learning.search.Searcher`)."""

    def __init__(self, box, support, config):
        self.text, self.scale = start_text(box, support, config), box.logit_scale
        super().__init__(prototypes=self.text)
        raw, self.labels = support.whole()
        self.features, self.shots = F.normalize(raw, dim=-1), len(support.labels)
        self.seed, self.settings = config.seed, config.settings
        self.optimizer = torch.optim.SGD(self.tensors.values(), lr=self.settings.lr, momentum=self.settings.momentum)

    def step(self, index: int, steps: int) -> dict:
        s, prototypes = self.settings, self.tensors["prototypes"]
        number = index // steps_per_pass(self.shots, s.batch)  # of the pass
        rows = batch_rows(self.seed, index, len(self.labels), s.batch).to(self.labels.device)
        logits = self.scale * self.features[rows] @ F.normalize(prototypes, dim=-1).T
        rate = cosine_after_warm_up(s.lr, number / s.passes, 1 / s.passes, s.warmup_lr)
        return self.descend(F.cross_entropy(logits, self.labels[rows]) + self.constraint(prototypes), rate)

    def constraint(self, prototypes: torch.Tensor) -> torch.Tensor | float:
        return 0.0

    def classifier(self, box, parameters) -> Classifier:
        return Classifier(F.normalize(parameters["prototypes"], dim=-1), IdentityAdapter(), box.logit_scale)


class Clap(ZeroShotProbe):
    def __init__(self, box, support, config):
        super().__init__(box, support, config)
        self.weights = config.settings.penalty * zero_shot_trust(self.scale * self.features @ self.text.T, self.labels)

    def constraint(self, prototypes: torch.Tensor) -> torch.Tensor:
        return (self.weights * (prototypes - self.text).square().sum(dim=1)).mean()


def zero_shot_trust(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """λ (C,): the mean over each class's rows of the probability of that class, from logits (n, C); 0 without rows."""
    members = F.one_hot(labels, logits.shape[1])
    return (logits.softmax(dim=1) * members).sum(dim=0) / members.sum(dim=0).clamp(min=1)
