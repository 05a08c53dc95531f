"""BBT on a CLIP text prompt (Sun et al., ICML 2022; github.com/txsun1997/Black-Box-Tuning).

CMA-ES over z with a fixed random A; a candidate's context is p₀ + A z, its fitness
the loss on the whole support set. For CLIP, CraFT and SharpZO report BBT as CraFT's
search without its head: four tokens "a photo of a", 512 numbers, populations of 40,
8,000 evaluations.

Changed: BBT's code tunes language models, and CraFT's always has its head; this is the
search that both share. The candidate with the lowest loss so far is deployed, as in BBT, not
the mean of a population, as in CraFT. CraFT sets the standard deviation of A's entries (0.2 or
1), σ (0.02 or 1) and the bounds of z (±5 or none) for each data set; here BPT-VLM's rule sets
the first, with the embeddings of the task's own sentences in place of the vocabulary's,
which a box does not give, σ is 1, and there are no bounds. pycma's own stopping rules,
which both codes use, are off: all evaluations are made.

What a loss query scores: one context on all shots, every view of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from cbbt.adapters import IdentityAdapter
from cbbt.box.prompts import initial_context
from cbbt.checks import check_ranges, check_types
from cbbt.learning.fitting import Classifier, ContextPrompt, Fitted
from cbbt.learning.search import search
from cbbt.methods.parts.evolution import Evolution, calibrated_std, random_projection
from cbbt.seeding import generator_for


@dataclass(frozen=True)
class Settings:
    """The published constants; see the module's docstring for the scale of A."""

    tokens: int = 4  # context vectors
    init: str = "a photo of a"  # p₀
    numbers: int = 512  # of z
    population: int = 40
    evaluations: int = 8000  # candidates scored in total
    sigma: float = 1.0
    bound: float = 0.0  # entries of z stay in ±bound; 0: none
    std: float | None = None  # of A's entries; None: calibrated to the token embeddings

    def __post_init__(self):
        check_types(self)
        at_least = {"tokens": 1, "numbers": 1, "population": 2, "evaluations": self.population, "bound": 0}
        check_ranges(self, at_least, positive=("sigma",) if self.std is None else ("sigma", "std"))

    @property
    def dimension(self) -> int:
        """Number of parameters searched."""
        return self.numbers


def fit(box, support, config, session) -> Fitted:
    settings = config.settings
    return search(box, support, config, session, Bbt(box, support, config), settings.evaluations // settings.population)


class Bbt:
    """The algorithm; a step is one generation (see `cbbt.learning.search.Searcher`)."""

    def __init__(self, box, support, config):
        self.box, self.support, s = box, support, config.settings
        draw = generator_for(config.seed, "context")
        self.start = initial_context(box, s.init, s.tokens, generator=draw)
        std = s.std or calibrated_std(box, support, s.numbers, s.sigma)
        self.projection = random_projection(self.start.numel(), s.numbers, std, draw).to(box.device)
        self.evolution = Evolution(s.dimension, s.sigma, s.population, s.bound, config.seed)
        raw, self.labels = support.whole()
        self.features = F.normalize(raw, dim=-1)
        self.best, self.best_loss = torch.zeros(s.dimension, device=box.device), torch.inf
        self.cost = {"loss_queries": s.population, "class_prompts": s.population * len(support.class_names)}

    def contexts(self, z: torch.Tensor) -> torch.Tensor:
        """Contexts (N, M, D) of candidates (N, k)."""
        return self.start + (z @ self.projection.T).view(len(z), *self.start.shape)

    def losses(self, candidates: torch.Tensor) -> torch.Tensor:
        """Losses (N,) of candidates (N, k) on the whole support set."""
        text = self.box.encode_prompts(self.contexts(candidates), self.support.class_names)
        return self.box.losses(text, self.features, self.labels)

    def step(self, index: int, steps: int) -> dict:
        candidates = self.evolution.ask().to(self.box.device)
        losses = self.losses(candidates)
        self.evolution.tell(losses.cpu())
        if losses.min() < self.best_loss:
            self.best, self.best_loss = candidates[losses.argmin()], losses.min().item()
        return {"train_loss": self.best_loss}

    def parameters(self) -> dict[str, torch.Tensor]:
        return {"z": self.best}

    def classifier(self, box, parameters) -> Classifier:
        prompt = ContextPrompt(self.contexts(parameters["z"][None])[0])
        return Classifier(prompt(box, self.support), IdentityAdapter(), box.logit_scale, retext=prompt)

    def state(self) -> dict[str, torch.Tensor]:
        return {"z": self.best, "losses": self.evolution.history()}

    def restore(self, state) -> None:
        self.evolution.replay(state["losses"].cpu())
        self.best, self.best_loss = state["z"], state["losses"].min().item()  # stored in double precision, so not rounded
