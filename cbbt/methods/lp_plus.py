"""LP++ (Huang et al., CVPR 2024; github.com/FereshteShakeri/FewShot-CLIP-Strong-Baseline).

A linear probe with a learned weight for each class's text: logits W f + b + α_c f·t_c, trained on
all N features at once. Step sizes are not searched; they follow from the features F (N, E):

    of W and b   4 N / λ_max(Fᵀ F), with momentum, in every epoch
    of α         N / (4 max_c Σ_i (f_i·t_c)²), a plain step, in every tenth epoch

W starts at the sums of the classes' features, each α_c at `text_weight` τ times the mean of f_i·t_{y_i}.

Repaired: the released code never clears α's gradient, so each step uses the sum of all gradients so
far; here only the current one. For six data sets it first reduces the images to those of one draw, so
that its ten draws differ only in order; here every seed makes a new draw.

Changed: it reports the best epoch on as many validation images as shots; here the last one.
It takes one random crop of each shot; here all of the run's `views`. Its bias starts at random, here at 0.
α starts at 250 times the mean, which is 2.5 τ for CLIP's τ of 100.

What a loss query scores: the method makes none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from cbbt.adapters import LinearHead
from cbbt.checks import check_ranges, check_types
from cbbt.learning.fitting import Classifier, Fitted
from cbbt.learning.search import search
from cbbt.methods.parts.descent import Descent
from cbbt.methods.parts.start import start_text


@dataclass(frozen=True)
class Settings:
    """LP++'s published constants."""

    steps: int = 300  # epochs, each of one batch
    momentum: float = 0.9
    text_every: int = 10  # epochs per step of α
    text_weight: float = 2.5  # of α at the start, times τ

    def __post_init__(self):
        check_types(self)
        check_ranges(self, {"steps": 1, "momentum": 0, "text_every": 1, "text_weight": 0})


def fit(box, support, config, session) -> Fitted:
    return search(box, support, config, session, LpPlus(box, support, config), config.settings.steps)


class LpPlus(Descent):
    """The training; a step is one epoch (see `cbbt.learning.search.Searcher`)."""

    def __init__(self, box, support, config):
        self.settings, self.text = config.settings, start_text(box, support, config)
        raw, self.labels = support.whole()
        self.features = F.normalize(raw, dim=-1)
        self.cosines = self.features @ self.text.T
        sums = F.one_hot(self.labels, len(self.text)).to(raw.dtype).T @ self.features / len(support.views)
        own = self.cosines.gather(1, self.labels[:, None]).mean()
        shares = self.settings.text_weight * box.logit_scale * own.expand(len(self.text))
        super().__init__(weight=sums.T, bias=torch.zeros_like(shares), shares=shares)
        self.rate, self.text_rate = step_sizes(self.features, self.cosines)
        trained = [self.tensors["weight"], self.tensors["bias"]]
        self.optimizer = torch.optim.SGD(trained, lr=self.rate, momentum=self.settings.momentum)

    def step(self, index: int, steps: int) -> dict:
        weight, bias, shares = self.tensors.values()
        logits = self.features @ weight + bias + shares * self.cosines
        columns = self.descend(F.cross_entropy(logits, self.labels), self.rate)
        if (index + 1) % self.settings.text_every == 0:
            shares.data -= self.text_rate * shares.grad
        return columns

    def classifier(self, box, parameters) -> Classifier:
        head = LinearHead(parameters["weight"], parameters["bias"])
        return Classifier(parameters["shares"][:, None] * self.text, head, logit_scale=1.0)


def step_sizes(features: torch.Tensor, cosines: torch.Tensor) -> tuple[float, float]:
    """The step sizes of W and b, and of α, for features (N, E) and their cosines with the class text (N, C)."""
    n = len(features)
    largest = torch.linalg.matrix_norm(features.double(), 2).square()  # eigenvalue of Fᵀ F
    return 4 * n / largest.item(), n / (4 * cosines.double().square().sum(dim=0).max().item())
