"""CBBT+, this kit's own variant: a prompt tuned by linearised answers, pooled with experts on the same shots.

Prompt side. CBBT uses only the loss of a perturbed prompt; the box answers with the features of
every class. Kept whole, these answers give a local model on which the loss of the whole support set
has an exact gradient (`cbbt.gradients.linearised`). A step queries q directions and three candidate
points, q + 3 prompt sets, where a step of CBBT queries q + 1 for one estimate.

Output side. A residual adapter that is trained on tuned text learns again what the prompt has
learned. Here several experts are fitted with the text of the initial prompt, and the tuned prompt
joins them with a vote of its own:

    log p = w log p_prompt + Σ_h w_h log p_h,   w = `prompt_weight` / √shots · Σ_h w_h

- "kernel": kernel ridge regression from the initial prompt to the labels (ProKeR, Bendou et al., 2025);
- "adapter": CBBT's residual adapter, with its own settings;
- "map": the orthogonal map from shots to their text, shrunk towards the identity (LFA's closed form, Ouali et al., 2023);
- "gda": Gaussian discriminant analysis (Wang et al., 2024).

The experts' weights are those that do best on held-out shots (`cbbt.methods.parts.experts`).
The prompt cannot be weighted this way, since it has seen all shots. With few shots it is as good as the experts, with
many it is not, so its weight falls with their number. Without `experts` the prompt is used alone; with `steps` at 0 it
stays untuned.

With a box that gives logits of images but no prompt features, the prompt can still be tuned alone: the logits of the
shots are then linearised.

What a loss query scores: one context on all views of all shots. Each context queried counts as one, though the loss
is computed from the answer on the user's side.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from cbbt.adapters import IdentityAdapter
from cbbt.checks import check_ranges, check_types, choose, require_distinct
from cbbt.gradients.linearised import CANDIDATES, LinearisedAnswers
from cbbt.learning.fitting import Classifier, ContextPrompt, Fitted
from cbbt.learning.search import search
from cbbt.methods.parts.experts import EXPERTS, fitted_experts
from cbbt.methods.parts.start import start_context
from cbbt.seeding import generator_for

DEFAULTS = {"context_length": 4, "q": 16}


@dataclass(frozen=True)
class Settings:
    """CBBT+'s settings in addition to those of all methods (`q`, `epsilon`, `context_length`, those of the adapter)."""

    steps: int = 12  # of the prompt, q + 3 prompt sets each
    memory: int = 64  # directions in the frame
    experts: list = field(default_factory=lambda: list(EXPERTS))
    prompt_weight: float = 0.5  # with one shot, relative to the experts' total; divided by the square root of the number of shots
    beta: float = 2.0  # sharpness of the kernel
    ridge: float = 0.3  # λ of its regression
    shrinkage: float = 0.3  # of the map towards the identity
    answers: str = "features"  # what is linearised: "features" of prompts, or "logits" of the shots

    def __post_init__(self):
        check_types(self)
        for expert in self.experts:
            choose("expert", expert, EXPERTS)
        if self.experts:
            require_distinct("experts", self.experts)
        check_ranges(self, {"steps": 0, "memory": 1, "prompt_weight": 0, "shrinkage": 0}, positive=("beta", "ridge"))
        choose("answers", self.answers, ("features", "logits"))
        if self.experts and self.answers != "features":
            raise ValueError("experts need prompt features: with answers='logits' set experts=[]")
        if self.shrinkage > 1:
            raise ValueError(f"shrinkage must lie in [0, 1], got {self.shrinkage}")


@dataclass(frozen=True)
class PromptSettings(Settings):
    """The prompt alone, for longer."""

    steps: int = 20
    experts: list = field(default_factory=list)


@dataclass(frozen=True)
class LogitsSettings(PromptSettings):
    """The prompt alone, from logits."""

    answers: str = "logits"


def fit(box, support, config, session) -> Fitted:
    searcher = CbbtPlus(box, support, config, session)
    fitted = search(box, support, config, session, searcher, config.settings.steps)
    return dataclasses.replace(fitted, learned=fitted.learned + searcher.learned)


class CbbtPlus:
    """The prompt, in steps (see `cbbt.learning.search.Searcher`); the experts are fitted at the start."""

    def __init__(self, box, support, config, session):
        self.box, self.support, self.config, self.settings = box, support, config, config.settings
        raw, self.labels = support.whole()
        self.features = F.normalize(raw, dim=-1)
        start = start_context(box, support, config)
        self.gives_features = self.settings.answers == "features"
        self.answers = LinearisedAnswers(
            self.ask, start, unit=self.gives_features, memory=self.settings.memory, epsilon=config.epsilon
        )
        self.experts = fitted_experts(box, support, config, session, self.answers.answer) if self.settings.experts else None
        self.learned = sum(tensor.numel() for tensor in self.experts.state_dict().values()) if self.experts else 0
        sets = config.q + CANDIDATES
        self.cost = {"loss_queries": sets, "class_prompts": sets * len(support.class_names)}

    def ask(self, contexts: torch.Tensor) -> torch.Tensor:
        """Answers to N contexts: text features (N, C, E), or logits (N, n, C) of all views of all shots."""
        text = self.box.encode_prompts(contexts, self.support.class_names, self.config.position)
        if not self.gives_features:
            return self.box.logits(text, self.features)
        self.box.ledger.charge("loss_queries", len(contexts))
        return text

    def loss(self, answer: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of all views of all shots, for one answer."""
        logits = self.box.logit_scale * self.features @ answer.T if self.gives_features else answer
        return F.cross_entropy(logits, self.labels)

    def step(self, index: int, steps: int) -> dict:
        self.answers.explore(self.config.q, generator_for(self.config.seed, "directions", index))
        return {"train_loss": self.answers.move(self.loss)}

    def parameters(self) -> dict[str, torch.Tensor]:
        return {"context": self.answers.point}

    def classifier(self, box, parameters) -> Classifier:
        prompt = ContextPrompt(parameters["context"], self.config.position)
        text = prompt(box, self.support)
        if not self.experts:
            return Classifier(text, IdentityAdapter(), box.logit_scale, retext=prompt)
        shots = len(self.support.labels) / len(text)
        weight = self.settings.prompt_weight / shots**0.5 * self.experts.weights.sum().item()
        return Classifier(text, self.experts, box.logit_scale, text_weight=weight, retext=prompt)

    def state(self) -> dict[str, torch.Tensor]:
        return self.answers.state()

    def restore(self, state) -> None:
        self.answers.restore(state)
