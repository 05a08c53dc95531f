"""Frozen image encoders on the user's side, which cost no query.

`PrincipalComponents` needs only the shots; `TimmEncoder` is a network of timm with
weights from a local file. Both map the box's preprocessed images (B, 3, H, W) to
vectors (B, width) with entries of order one.
"""

from __future__ import annotations

import os
from pathlib import Path

import lazy_loader
import torch
import torch.nn.functional as F

from cbbt.checks import nearest

timm = lazy_loader.load("timm")

SIDE = 32  # larger images are averaged down to this size before their components are computed
SMALLEST = 1e-3  # components below this fraction of the first one's standard deviation are only rounding errors


class PrincipalComponents:
    """The first principal components of a set of images, each scaled to variance one over the set.

    pixels: `cbbt.data.pixels.Pixels`, n images. width: components kept, at most n − 1.
    """

    def __init__(self, pixels, width: int, device: torch.device):
        flat = torch.cat([self._flat(batch) for batch in pixels.batches()])
        self.mean = flat.mean(dim=0)
        _, singular, axes = torch.linalg.svd(flat - self.mean, full_matrices=False)
        rank = int((singular > SMALLEST * singular[0]).sum())
        keep = min(width, len(flat) - 1, rank)
        scale = (len(flat) - 1) ** 0.5 / singular[:keep, None]
        self.mean, self.components = self.mean.to(device), (scale * axes[:keep]).to(device)

    @staticmethod
    def _flat(pixels: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(pixels, min(SIDE, pixels.shape[-1])).flatten(1)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return (self._flat(pixels) - self.mean) @ self.components.T


class TimmEncoder:
    """A frozen network of timm without its head, on images renormalised and resized for it.

    weights: a local file, safetensors or readable by `torch.load` with weights_only; it must hold every
    weight of the network, and nothing else except heads. preprocess_config: of the box.
    Raises ValueError for an unknown name, a missing file, or weights that do not fit.
    """

    def __init__(self, name: str, weights: str | Path, preprocess_config: dict, device: torch.device):
        if not timm.is_model(name):
            raise ValueError(f"unknown encoder {name!r}: choose 'pca' or a model of timm; {_nearest(name)}")
        path = Path(os.path.expanduser(weights))
        if not path.is_file():
            raise ValueError(f"encoder {name!r} needs encoder_weights, a local file, got {str(weights)!r}: nothing is downloaded")
        try:
            with torch.random.fork_rng(devices=[]):  # its random initial weights are overwritten
                self.network = timm.create_model(name, pretrained=False, num_classes=0)
        except RuntimeError as error:
            raise ValueError(f"encoder {name!r} cannot be built: {error}") from error
        config = self.network.default_cfg
        heads = config.get("classifier") or "head"  # distilled networks have two
        self._load(path, name, [heads] if isinstance(heads, str) else list(heads))
        self.network.eval().requires_grad_(False).to(device)
        self.side = config["input_size"][-1]
        own, other = (torch.tensor([c["mean"], c["std"]], device=device)[..., None, None] for c in (config, preprocess_config))
        self.factor, self.offset = other[1] / own[1], (other[0] - own[0]) / own[1]

    def _load(self, path: Path, name: str, heads: list[str]) -> None:
        own, roots = self.network.state_dict().keys(), tuple(head.split(".")[0] + "." for head in heads)
        try:
            state = timm.models.load_state_dict(str(path), use_ema=False, weights_only=True)
            self.network.load_state_dict({key: value for key, value in state.items() if key in own or not key.startswith(roots)})
        except Exception as error:  # torch, pickle, zip and safetensors each raise their own
            raise ValueError(f"weights {path} do not fit encoder {name!r}: {error}") from error

    @torch.no_grad()
    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        x = pixels * self.factor + self.offset
        if x.shape[-1] != self.side:
            x = F.interpolate(x, size=(self.side, self.side), mode="bilinear", antialias=True)
        return self.network(x).float()


def _nearest(name: str) -> str:
    near = nearest(name, timm.list_models()).split("; valid")[0]
    return f"{near}; all: timm.list_models()"
