"""BPT-VLM, shallow: text and image prompts evolved together (Yu et al., IJCAI 2023; github.com/BruthYU/BPT-VLM).

One CMA-ES over the joint z of 500 + 500 numbers: eight text context vectors A z_t and
five tokens B z_i, which are inserted among the patches of the image transformer; the
fitness is the loss on the whole support set, whose images are encoded again for every
candidate. The prompt with the lowest loss so far is deployed.

Repaired: the released code tests every 12 generations (ImageNet 60) and keeps the highest
of these test accuracies; here the test split is not seen.

Changed: the scale of A is that of token embeddings, as published, but from the task's own
sentences, because a box does not give the vocabulary's. Published mean and scale of B are
statistics of the image tower's first weights, which a box does not give either: here
the mean is 0 and the scale W^-1/2, with W the tokens' width, as CLIP initialises such tokens.
The released code draws its shots by its own rule, replaces hyphens in class names by
spaces, and uses pycma's own stopping rules; here shots are CoOp's, hyphens stay, and all
evaluations are made.

What a loss query scores: one candidate on all shots, whose images are encoded again for it;
in `bpt_vlm_text` one context on all views of all shots.

`bpt_vlm` needs a box that takes image tokens, a vision transformer; `bpt_vlm_text` is only
the text side, for any box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from cbbt.checks import check_ranges
from cbbt.learning.fitting import Classifier, Fitted
from cbbt.learning.search import search
from cbbt.methods import bbt
from cbbt.methods.parts.evolution import random_projection
from cbbt.seeding import generator_for


@dataclass(frozen=True)
class Settings(bbt.Settings):
    """The published constants."""

    tokens: int = 8
    init: str = "zeros"  # p₀: none, the context is A z
    numbers: int = 500  # of z_t
    population: int = 30
    evaluations: int = 25200  # published: 3,600 to 36,000, by data set
    image_tokens: int = 5
    image_numbers: int = 500  # of z_i

    def __post_init__(self):
        super().__post_init__()
        check_ranges(self, {"image_tokens": 0, "image_numbers": 1})
        if bool(self.image_tokens) == isinstance(self, TextSettings):
            raise ValueError(f"bpt_vlm needs image tokens, bpt_vlm_text has none, got image_tokens={self.image_tokens}")

    @property
    def dimension(self) -> int:
        return self.numbers + (self.image_numbers if self.image_tokens else 0)


@dataclass(frozen=True)
class TextSettings(Settings):
    """`bpt_vlm_text`: no tokens among the patches."""

    image_tokens: int = 0


def fit(box, support, config, session) -> Fitted:
    settings = config.settings
    return search(box, support, config, session, Bpt(box, support, config), settings.evaluations // settings.population)


class Bpt(bbt.Bbt):
    """BBT's search with a second part of z for the images."""

    def __init__(self, box, support, config):
        s = config.settings
        if s.image_tokens and box.image_token_dim is None:
            raise ValueError(f"{box.name} takes no image tokens, which bpt_vlm needs; choose bpt_vlm_text, its text side")
        super().__init__(box, support, config)
        self.settings, self.image_projection = s, None
        if s.image_tokens:
            std = box.image_token_dim**-0.5 / (math.sqrt(s.image_numbers) * s.sigma)
            draw = generator_for(config.seed, "image tokens")
            self.image_projection = random_projection(s.image_tokens * box.image_token_dim, s.image_numbers, std, draw).to(
                box.device
            )
            self.labels = support.labels
            self.cost |= {"images": s.population * len(support.labels)}

    def contexts(self, z: torch.Tensor) -> torch.Tensor:
        return super().contexts(z[:, : self.settings.numbers])

    def image_tokens(self, z: torch.Tensor) -> torch.Tensor:
        """Image tokens (V, W) of one candidate (k,)."""
        return (self.image_projection @ z[self.settings.numbers :]).view(self.settings.image_tokens, -1)

    def losses(self, candidates: torch.Tensor) -> torch.Tensor:
        if self.image_projection is None:
            return super().losses(candidates)
        texts = self.box.encode_prompts(self.contexts(candidates), self.support.class_names)
        return torch.cat([self.loss(text, z) for text, z in zip(texts, candidates)])

    def loss(self, text: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """The loss (1,) of one candidate: its class features (C, E) on the shots encoded with its image tokens."""
        see = seen_through(self.image_tokens(z))
        features = torch.cat([see(self.box, batch.to(self.box.device)) for batch in self.support.pixels.batches()])
        return self.box.losses(text[None], F.normalize(features, dim=-1), self.labels)

    def classifier(self, box, parameters) -> Classifier:
        classifier = super().classifier(box, parameters)
        if self.image_projection is not None:
            classifier.image_prompt = seen_through(self.image_tokens(parameters["z"]))
        return classifier


def seen_through(tokens: torch.Tensor):
    """(box, pixels (B, 3, H, W)) → raw features (B, E) with these tokens (V, W) among the patches."""
    return lambda box, pixels: box.encode_images(pixels, normalize=False, tokens=tokens)
