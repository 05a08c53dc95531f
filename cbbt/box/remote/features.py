"""Boxes for services that give only features of texts and images.

A `FeatureBox` is built from two functions, for any service that you can call from Python:

    box = FeatureBox("our-clip", texts=lambda texts: …, images=lambda pixels: …)

and `openai_features` has both for services with an API like OpenAI's `/v1/embeddings`
that also take images. Such a service takes no context vectors, so methods that tune them
are refused; zero-shot, adapters, caches, linear heads and word search need only features.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from json import dumps

import torch
import torch.nn.functional as F
from torchvision.transforms.functional import to_pil_image

from cbbt.box.access import ServiceRefused
from cbbt.box.blackbox import BlackBox
from cbbt.box.ledger import Ledger
from cbbt.box.remote.connection import Connection, name_of

TEXTS_AT_ONCE, IMAGES_AT_ONCE = 128, 32  # per request


class FeatureBox(BlackBox):
    """A black box made of two functions; see `BlackBox` for its attributes and methods.

    Args:
        name: identifies the model in records and in the feature cache: another model needs another name.
        texts: list of n sentences → features (n, E). images: pixels (B, 3, S, S) in 0…1 → features (B, E).
            Anything that `torch.as_tensor` takes, of any norm. Raw image features are returned as the service gives them.
        image_size: S; images are resized and cropped to it, as for CLIP.
        logit_scale: τ; None if unknown: a run then chooses it on its shots.

    Queries raise ValueError for features of the wrong shape or that are not finite, and what the functions raise.
    """

    def __init__(
        self,
        name: str,
        texts: Callable[[list[str]], torch.Tensor],
        images: Callable[[torch.Tensor], torch.Tensor],
        *,
        image_size: int = 224,
        logit_scale: float | None = None,
        device: torch.device | str = "cpu",
        ledger: Ledger | None = None,
    ):
        self.name, self.device, self.image_size, self.logit_scale = name, torch.device(device), image_size, logit_scale
        self.functions = {"texts": texts, "images": images}
        self.context_dim = self.image_token_dim = None
        self.preprocess_config = {
            "size": image_size, "mode": "RGB", "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0),
            "interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0,
        }  # fmt: skip
        self.access = frozenset({"text", "pixels", "features"})
        self.ledger = ledger or Ledger()
        self.embed_dim = None  # until the first text is encoded
        self.embed_dim = self._texts(["a"]).shape[1]

    def fingerprint(self) -> str:
        """Sixteen hex digits over the name and the image size; the service's weights cannot be inspected."""
        return hashlib.sha256(f"{self.name} {self.image_size}".encode()).hexdigest()[:16]

    def token_embeddings(self, words):
        self._refuse()

    def _read_prompts(self, contexts, names, position):
        self._refuse()

    def _read_texts(self, texts):
        return texts

    def _texts(self, texts):
        parts = [texts[start : start + TEXTS_AT_ONCE] for start in range(0, len(texts), TEXTS_AT_ONCE)]
        return F.normalize(torch.cat([self._features("texts", part) for part in parts]), dim=-1)

    def _images(self, pixels, normalize, tokens):
        features = torch.cat([self._features("images", part) for part in pixels.cpu().float().split(IMAGES_AT_ONCE)])
        return F.normalize(features, dim=-1) if normalize else features

    def _features(self, kind: str, asked) -> torch.Tensor:
        features = torch.as_tensor(self.functions[kind](asked)).detach().to(self.device, torch.float32)
        expected = (len(asked), self.embed_dim or "E")
        if features.ndim != 2 or len(features) != len(asked) or self.embed_dim not in (None, features.shape[1]):
            raise ValueError(f"{self.name} should give features {expected} of {len(asked)} {kind}, got {tuple(features.shape)}")
        if not features.isfinite().all():
            raise ValueError(f"{self.name} gave features of {kind} that are not finite")
        return features

    def _refuse(self):
        raise ServiceRefused(f"{self.name} gives only features of texts and images: its prompts cannot hold context vectors")


def openai_features(
    address: str,
    model: str,
    key: str = "",
    *,
    image_size: int = 224,
    device: torch.device | str = "cpu",
    ledger: Ledger | None = None,
) -> FeatureBox:
    """The box of a model at `address`/embeddings, such as http://localhost:7997/v1 or https://api.jina.ai/v1.

    Texts are sent as they are; images as PNG in base64, `{"image": …}` as jina-clip's service takes them, or, if
    that is refused, as data URLs with `"modality": "image"`, as infinity does. Two requests of one input each
    find out which. The logit scale of the model is unknown.
    """
    connection, counted = Connection(address, key), Ledger()

    def ask(inputs: list, **more) -> torch.Tensor:
        content = dumps({"model": model, "input": inputs, **more}).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": name_of(counted, "embeddings", content)}
        counted.charge("images", len(inputs))  # texts too: it only tells equal requests apart
        answer = connection.post("/embeddings", content, headers).json()
        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            return torch.tensor([row["embedding"] for row in rows])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"expected embeddings from {address}, got {str(answer)[:200]}") from error

    def as_objects(pixels: torch.Tensor) -> torch.Tensor:
        return ask([{"image": png(each)} for each in pixels])

    def as_modality(pixels: torch.Tensor) -> torch.Tensor:
        return ask([f"data:image/png;base64,{png(each)}" for each in pixels], modality="image")

    images = as_objects
    try:
        images(torch.zeros(1, 3, 32, 32))
    except ValueError:
        images = as_modality
        images(torch.zeros(1, 3, 32, 32))
    box = FeatureBox(model, ask, images, image_size=image_size, device=device, ledger=ledger)
    box.connection = connection
    return box


def png(pixels: torch.Tensor) -> str:
    """An image (3, H, W) in 0…1 as PNG in base64, rounded to eight bits a channel, as before preprocessing."""
    buffer = io.BytesIO()
    to_pil_image(pixels.clamp(0, 1).mul(255).round().byte()).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
