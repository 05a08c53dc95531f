"""Restricted services: the same model with less informative answers.

    half                features in half precision
    int8                features with 8 bits per entry and one scale per vector
    noise1e-2, -3       Gaussian noise on every feature, as a fraction of its root
                        mean square, drawn anew for each answer
    logits              no prompt features: only losses and logits of images
    top5                only losses, from the logits of the top five classes, the others set to the fifth
    labels              only the predicted label: a loss is the share of wrong labels

Image features are always given: they represent the images in queries for losses.
Prompt features that are not given are sealed (`cbbt.box.access`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cbbt.box.access import GIVES, TAKES, Sealed, ServiceRefused
from cbbt.box.blackbox import BlackBox, _behind
from cbbt.box.ledger import Ledger
from cbbt.seeding import generator_for


@dataclass(frozen=True)
class Service:
    """gives: some of features, logits, losses. noise: its size on features, as a fraction of their root mean square."""

    gives: frozenset[str]
    noise: float = 0.0

    @property
    def access(self) -> frozenset[str]:
        """What it takes, which is what the model takes, and what it gives."""
        return self.gives.union(TAKES)


def _gives(*answers: str, **options) -> Service:
    return Service(frozenset(answers), **options)


SERVICES = {
    "full": _gives("features", "logits", "losses", "gradients"),
    "half": _gives("features", "logits", "losses"),
    "int8": _gives("features", "logits", "losses"),
    "noise1e-3": _gives("features", "logits", "losses", noise=1e-3),
    "noise1e-2": _gives("features", "logits", "losses", noise=1e-2),
    "logits": _gives("logits", "losses"),
    "top5": _gives("losses"),
    "labels": _gives("losses"),
}


class PoorBox(BlackBox):
    """A handle on a box's model that answers as the service `service` of `SERVICES` does, at the same cost.

    Noise is drawn from a generator that depends on `seed`, on what the handle's ledger has counted so far, and on how
    many ledgers lie between it and `box`: a resumed run gets the same noise as an uninterrupted one.
    """

    def __init__(self, box: BlackBox, service: str, seed: int):
        vars(self).update(vars(box), service=service, seed=seed, handle=0)
        self.access = (box.access - set(GIVES)) | SERVICES[service].gives
        _behind[self] = _behind[box]

    def with_ledger(self, ledger: Ledger) -> PoorBox:
        other = super().with_ledger(ledger)
        other.handle += 1
        return other

    def fingerprint(self) -> str:
        """The model's, with the service and, where noise is drawn, the seed."""
        drawn = f" seed {self.seed} handle {self.handle}" if SERVICES[self.service].noise else ""
        return f"{super().fingerprint()} {self.service}{drawn}"

    def encode_images(self, pixels, normalize=True, tokens=None):
        count = str(self.ledger.counts)
        return self._poorer(super().encode_images(pixels, normalize, tokens), count)

    def encode_prompts(self, contexts, class_names, position="end"):
        count = str(self.ledger.counts)
        return self._sealed(self._poorer(super().encode_prompts(contexts, class_names, position), count))

    def encode_texts(self, texts):
        count = str(self.ledger.counts)
        return self._sealed(self._poorer(super().encode_texts(texts), count))

    def losses(self, text, images, labels, offsets=None):
        return super().losses(text.as_subclass(torch.Tensor), images, labels, offsets)

    def logits(self, text, images):
        """Raises `ServiceRefused`, and counts nothing, if logits are not given."""
        if "logits" not in SERVICES[self.service].gives:
            raise ServiceRefused(f"the service {self.service!r} gives no logits")
        return super().logits(text.as_subclass(torch.Tensor), images)

    def _poorer(self, features: torch.Tensor, count: str) -> torch.Tensor:
        """Features as the service gives them; `count`: what the ledger had counted before the query."""
        if self.service == "half":
            return features.half().float()
        if self.service == "int8":
            scale = features.abs().amax(dim=-1, keepdim=True) / 127
            return (features / scale).round() * scale
        if noise := SERVICES[self.service].noise:
            draw = generator_for(self.seed, "service", self.handle, count)
            size = noise * features.square().mean(dim=-1, keepdim=True).sqrt()
            return features + size * torch.randn(features.shape, generator=draw).to(features.device)
        return features

    def _sealed(self, text: torch.Tensor) -> torch.Tensor:
        return text if self.gives_features else text.as_subclass(Sealed)

    def _losses(self, text, images, labels, offsets):
        if self.service == "labels":
            wrong = self._logits(text, images).argmax(dim=-1) != labels[:, None]
            return wrong.float().mean(dim=0)
        return super()._losses(text, images, labels, offsets)

    def _logits(self, text, images):
        logits = super()._logits(text, images)
        if self.service != "top5" or logits.shape[-1] <= 5:
            return logits
        return logits.clamp(min=logits.topk(5, dim=-1).values[..., -1:])
