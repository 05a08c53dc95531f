"""CraFT: a prompt by evolution, a head by gradients (Wang et al., ICML 2024; github.com/mrflogs/CraFT).

The prompt is searched as in BBT. In addition a small network on the logits is trained,
refined = logits + MLP(logits), and each side is regularised towards the other,

    fitness of z      CE(logits) + w · KL(refined ‖ logits)
    loss of the head  CE(refined) + w · KL(logits ‖ refined), w = 0 after 1/n of the search

In each generation the head is trained for one epoch, on the next of the augmented
views, at the context of the distribution's mean.

Repaired: the released code trains the head on logits of unnormalised image features,
but scores and deploys it on logits of normalised ones; here they are normalised in all
three places. Its budget counts only prompts; here the images are counted too.

Changed: the released code draws one more population and takes its mean, which is the
distribution's mean plus noise; its head sees a new random view of every shot in each
generation, here the run's `views` in turn; its logits have the factor 100, here the
box's own. The standard deviation of the projection's entries (0.2 or 1), σ (0.02 or 1), the
bounds of z (±5 or none), w (0 to 1) and n (1 or 4) were set for each data set by an unstated
rule; here they are the same for all, the deviation as in `bbt`. For ImageNet the released
code has a wider head (512) and deploys the best candidate; here ImageNet is treated like the others.

What a loss query scores: one context on all shots, the first view of each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from cbbt.adapters import IdentityAdapter
from cbbt.checks import check_ranges
from cbbt.learning.fitting import Classifier, ContextPrompt, Fitted
from cbbt.learning.progress import optimizer_tensors, part, restore_optimizer
from cbbt.learning.search import search
from cbbt.methods import bbt
from cbbt.seeding import generator_for


@dataclass(frozen=True)
class Settings(bbt.Settings):
    """The published constants; those of the search are BBT's."""

    hidden: int = 256
    head_lr: float = 1e-3
    batch: int = 256
    weight: float = 0.1  # w; published 0 to 1
    consistent_part: int = 1  # n: the head's term is dropped after 1/n of the search; published 1 or 4

    def __post_init__(self):
        super().__post_init__()
        check_ranges(self, {"hidden": 1, "batch": 1, "weight": 0, "consistent_part": 1}, positive=("head_lr",))


def fit(box, support, config, session) -> Fitted:
    settings = config.settings
    return search(box, support, config, session, Craft(box, support, config), settings.evaluations // settings.population)


class Craft(bbt.Bbt):
    """BBT's search with the refined logits in the fitness, and training of the head after each generation."""

    def __init__(self, box, support, config):
        super().__init__(box, support, config)
        self.settings, self.seed = config.settings, config.seed
        # The search scores one pass over the shots, as published.
        self.features, self.labels = F.normalize(support.views[0], dim=-1), support.labels
        self.z = torch.zeros_like(self.best)  # of the current context
        n_classes, s = len(support.class_names), self.settings
        self.head = RefiningHead(n_classes, s.hidden, generator_for(config.seed, "head")).to(box.device)
        self.optimizer = torch.optim.Adam(self.head.parameters(), lr=s.head_lr)
        # A step also encodes the text of the context at which the head is trained; if text features are not given, it
        # queries the logits instead.
        asked = 0 if box.gives_features else math.ceil(len(self.labels) / s.batch)
        self.cost = {"loss_queries": s.population + asked, "class_prompts": (s.population + 1) * n_classes}

    def step(self, index: int, steps: int) -> dict:
        columns = super().step(index, steps)
        self.z = self.evolution.mean().to(self.box.device)
        text = self.box.encode_prompts(self.contexts(self.z[None]), self.support.class_names)[0]
        weight = self.settings.weight if (index + 1) * self.settings.consistent_part <= steps else 0.0
        return columns | {"head_loss": self.train_head(text, index, weight)}

    def losses(self, candidates: torch.Tensor) -> torch.Tensor:
        texts = self.box.encode_prompts(self.contexts(candidates), self.support.class_names)
        # One candidate's logits at a time: for a thousand classes they are large.
        return torch.stack([self.fitness(self.box.logits(text[None], self.features)[0]) for text in texts])

    @torch.no_grad()
    def fitness(self, logits: torch.Tensor) -> torch.Tensor:
        """CE + w · KL(refined ‖ logits) of logits (n, C)."""
        return F.cross_entropy(logits, self.labels) + self.settings.weight * divergence(self.head(logits), logits)

    def train_head(self, text: torch.Tensor, index: int, weight: float) -> float:
        """One epoch over the view of generation `index`; returns the last batch's loss."""
        views, labels = self.support.views, self.support.labels
        order = torch.randperm(len(labels), generator=generator_for(self.seed, "head order", index))
        for rows in order.to(labels.device).split(self.settings.batch):
            logits = self.logits(text, F.normalize(views[index % len(views)][rows], dim=-1))
            refined = self.head(logits)
            loss = F.cross_entropy(refined, labels[rows]) + weight * divergence(logits, refined)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return loss.item()

    def logits(self, text: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Logits (n, C) of unit-norm features (n, E) for the class text (C, E)."""
        return self.box.logit_scale * features @ text.T if self.box.gives_features else self.box.logits(text[None], features)[0]

    def parameters(self) -> dict[str, torch.Tensor]:
        return {"z": self.z} | {f"head.{key}": value.detach().clone() for key, value in self.head.state_dict().items()}

    def classifier(self, box, parameters) -> Classifier:
        head = RefiningHead(len(self.support.class_names), self.settings.hidden, generator_for(0)).to(box.device)
        head.load_state_dict(part(parameters, "head."))
        prompt = ContextPrompt(self.contexts(parameters["z"][None])[0])
        return Classifier(prompt(box, self.support), IdentityAdapter(), box.logit_scale, head=head, retext=prompt)

    def state(self) -> dict[str, torch.Tensor]:
        moments = {f"adam.{key}": value for key, value in optimizer_tensors(self.optimizer).items()}
        return self.parameters() | moments | {"losses": self.evolution.history()}

    def restore(self, state) -> None:
        super().restore(state)  # restores the strategy, and the lowest loss so far
        self.z = state["z"]
        self.head.load_state_dict(part(state, "head."))
        restore_optimizer(self.optimizer, part(state, "adam."))


class RefiningHead(nn.Module):
    """logits (n, C) → logits + MLP(logits), the MLP C → hidden → C with ReLU."""

    def __init__(self, n_classes: int, hidden: int, generator: torch.Generator):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_classes, hidden), nn.ReLU(), nn.Linear(hidden, n_classes))
        for layer in (self.layers[0], self.layers[2]):
            bound = layer.in_features**-0.5  # torch's own range, from our generator
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits + self.layers(logits)


def divergence(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """KL(softmax(first) ‖ softmax(second)) of logits (n, C), mean over n."""
    logs = F.log_softmax(first, dim=1), F.log_softmax(second, dim=1)
    return F.kl_div(logs[1], logs[0], reduction="batchmean", log_target=True)
