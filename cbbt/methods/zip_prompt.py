"""ZIP: a prompt with 417 parameters (Park et al., ICLR 2025; github.com/LOG-postech/ZIP).

Eight context vectors are tuned together: the increments of all tokens form a low-rank
matrix plus a shared row, and a Fastfood projection F_i (Le et al., ICML 2013) maps each
row to the D numbers of its token,

    v_i = v_i⁰ + F_i (U diag(s) Vᵀ + 1 v_sharedᵀ)_i        U (8, 5), s (5), V (62, 5), v_shared (62)

The 417 parameters are tuned by SPSA, with the estimate clipped to norm √417.

Repaired: the released code keeps neither the initial context nor the projections in its
checkpoints; here both are drawn again from the seed. No autocast: 16 bits cannot resolve
the differences of losses.

Changed: the projections are linear and small, so they are converted to matrices once, while
the released code transforms at every pass. It crops and flips each batch at random and
encodes its images for every loss; here a batch comes from the run's `views`, one per epoch
in turn, and is encoded once.

What a loss query scores: one context on a batch of 128 shots (or all, if fewer).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import lazy_loader
import torch
import torch.nn.functional as F

from cbbt.adapters import IdentityAdapter
from cbbt.box.prompts import initial_context
from cbbt.checks import check_ranges, check_types
from cbbt.learning.fitting import Classifier, ContextPrompt, Fitted
from cbbt.learning.search import search
from cbbt.methods.parts.spsa import Gains, spsa_gradient
from cbbt.seeding import batch_rows, generator_for

linalg = lazy_loader.load("scipy.linalg", suppress_warning=True)


@dataclass(frozen=True)
class Settings:
    """ZIP's published constants."""

    tokens: int = 8  # context vectors
    init: str = "random"  # N(0, 0.02²), or words
    intrinsic: int = 500  # numbers before the factors: intrinsic // tokens for each token
    rank: int = 5
    averages: int = 5  # pairs of losses in an estimate
    a: float = 0.01
    c: float = 0.01
    batch: int = 128
    steps: int = 500  # of 10 loss queries: the published cap of 5,000

    def __post_init__(self):
        check_types(self)
        at_least = dict.fromkeys(("tokens", "rank", "averages", "batch", "steps"), 1)
        check_ranges(self, at_least | {"intrinsic": self.tokens}, positive=("a", "c"))


def fit(box, support, config, session) -> Fitted:
    return search(box, support, config, session, Zip(box, support, config), config.settings.steps)


class Zip:
    """The algorithm in steps (see `cbbt.learning.search.Searcher`)."""

    def __init__(self, box, support, config):
        self.box, self.support, self.config, self.settings = box, support, config, config.settings
        s = self.settings
        draw = generator_for(config.seed, "context")
        self.start = initial_context(box, s.init, s.tokens, generator=draw)
        self.projections = torch.stack([fastfood(s.intrinsic // s.tokens, box.context_dim, draw) for _ in range(s.tokens)]).to(
            box.device
        )
        self.shapes = {
            "U": (s.tokens, s.rank),
            "s": (s.rank,),
            "V": (s.intrinsic // s.tokens, s.rank),
            "shared": (s.intrinsic // s.tokens,),
        }
        factors = {
            "U": torch.zeros,
            "s": torch.ones,
            "V": lambda *shape: torch.randn(*shape, generator=draw),
            "shared": torch.zeros,
        }
        self.x = torch.cat([factors[name](*shape).flatten() for name, shape in self.shapes.items()]).to(box.device)
        self.gains = Gains(s.a, s.c)
        self.cost = {"loss_queries": 2 * s.averages, "class_prompts": 2 * s.averages * len(support.class_names)}

    def contexts(self, points: torch.Tensor) -> torch.Tensor:
        """Contexts (N, tokens, D) of points (N, 417)."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = zip(self.shapes.items(), points.split(sizes, dim=1))
        f = {name: part.view(len(points), *shape) for (name, shape), part in parts}
        rows = f["U"] @ (f["s"][:, :, None] * f["V"].mT) + f["shared"][:, None]
        return self.start + torch.einsum("tdk,ntk->ntd", self.projections, rows)

    def step(self, index: int, steps: int) -> dict:
        s, k = self.settings, index + 1
        rows = batch_rows(self.config.seed, index, len(self.support.labels), s.batch).to(self.box.device)
        epoch = index // max(1, len(self.support.labels) // s.batch)
        features = F.normalize(self.support.views[epoch % len(self.support.views)][rows], dim=-1)

        def loss(points):
            text = self.box.encode_prompts(self.contexts(points), self.support.class_names)
            return self.box.losses(text, features, self.support.labels[rows])

        estimate = spsa_gradient(loss, self.x, s.averages, self.gains.size(k), self.config.seed, k)
        self.x = self.x - self.gains.rate(k) * clipped(estimate.gradient)
        return {"train_loss": estimate.base_loss, "gradient_norm": estimate.gradient.norm().item()}

    def parameters(self) -> dict[str, torch.Tensor]:
        return {"x": self.x}

    def classifier(self, box, parameters) -> Classifier:
        prompt = ContextPrompt(self.contexts(parameters["x"][None])[0])
        return Classifier(prompt(box, self.support), IdentityAdapter(), box.logit_scale, retext=prompt)

    state = parameters

    def restore(self, state) -> None:
        self.x = state["x"]


def clipped(gradient: torch.Tensor) -> torch.Tensor:
    """`gradient` (δ,), shortened to norm √δ if it is longer."""
    return gradient * min(1.0, math.sqrt(gradient.numel()) / gradient.norm().item()) if gradient.any() else gradient


def fastfood(inputs: int, outputs: int, generator: torch.Generator) -> torch.Tensor:
    """A Fastfood projection H G Π H B as a matrix (outputs, inputs), scaled as in Li et al., ICLR 2018.

    B are signs, Π a permutation, G normal entries, H the Hadamard matrix of the
    next power of two L ≥ outputs; all is divided by √(L · ΣG²) · √(outputs / L).
    """
    size = 1 << max(outputs - 1, inputs - 1, 1).bit_length()
    transform = torch.from_numpy(linalg.hadamard(size)).float()
    signs = torch.randint(0, 2, (size,), generator=generator) * 2.0 - 1.0
    order = torch.randperm(size, generator=generator)
    normal = torch.randn(size, generator=generator)
    mixed = (transform * signs)[order] * normal[:, None]
    return (transform @ mixed / (outputs * normal.square().sum()).sqrt())[:outputs, :inputs]
