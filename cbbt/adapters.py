"""Output-side adapters: small modules on the user's side, after the black box.

They act on features that the box has already returned, so they are trained by
ordinary backpropagation. An adapter maps raw (not normalised) image features
(B, E) to a pair: unit-norm features (B, E), and logits (B, C) to add to the
similarity logits, or None. One that changes features independently of the classes is
`class_free` and works for other classes too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class IdentityAdapter(nn.Module):
    """Normalises the features and adds nothing: the unchanged model."""

    class_free = True

    def forward(self, raw: torch.Tensor):
        return F.normalize(raw, dim=-1), None


class LinearMap(nn.Module):
    """x' = normalise(x W) of unit-norm features x, W (E, E) copied (LFA, Ouali et al., ICCV 2023)."""

    class_free = True

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.register_buffer("weight", weight.detach().clone())

    def forward(self, raw: torch.Tensor):
        return F.normalize(F.normalize(raw, dim=-1) @ self.weight, dim=-1), None


class ResidualAdapter(nn.Module):
    """A residual bottleneck: f' = normalise(r·A(f) + (1 − r)·f).

    A is Linear(E → E/reduction), ReLU, Linear(E/reduction → E), ReLU, no biases,
    on raw features (CLIP-Adapter, Gao et al., IJCV 2024; CBBT uses r = 0.2).

    Args:
        width: E. reduction: E/reduction hidden units, ≥ 1. ratio: r in [0, 1].
        generator: CPU generator of the initial weights.
    """

    class_free = True

    def __init__(self, width: int, reduction: int = 4, ratio: float = 0.2, *, generator: torch.Generator):
        super().__init__()
        if not 0 <= ratio <= 1:
            raise ValueError(f"adapter ratio must lie in [0, 1], got {ratio}")
        if not 1 <= reduction <= width:
            raise ValueError(f"adapter reduction must lie in 1 … {width}, got {reduction}")
        self.ratio = ratio
        self.down = nn.Linear(width, width // reduction, bias=False)
        self.up = nn.Linear(width // reduction, width, bias=False)
        for layer in (self.down, self.up):
            nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)

    def forward(self, raw: torch.Tensor):
        adapted = F.relu(self.up(F.relu(self.down(raw))))
        return F.normalize(self.ratio * adapted + (1 - self.ratio) * raw, dim=-1), None


class CacheAdapter(nn.Module):
    """A key-value cache of the support set: logits α·exp(−β(1 − f·Kᵀ))·L.

    Keys K (n, E) are unit-norm support features, values L (n, C) their one-hot
    labels (Tip-Adapter, Zhang et al., ECCV 2022). Frozen keys are the
    training-free form; trained keys are Tip-Adapter-F.

    Args:
        keys: (n, E). labels: int64 (n,). n_classes: C.
        alpha: weight of the cache, ≥ 0. beta: sharpness, > 0.
    """

    def __init__(self, keys: torch.Tensor, labels: torch.Tensor, n_classes: int, alpha: float = 1.0, beta: float = 1.0):
        super().__init__()
        if alpha < 0 or beta <= 0:
            raise ValueError(f"a cache needs alpha ≥ 0 and beta > 0, got {alpha} and {beta}")
        self.keys = nn.Parameter(F.normalize(keys, dim=-1))
        self.register_buffer("values", F.one_hot(labels, n_classes).to(keys.dtype))
        self.alpha, self.beta = alpha, beta

    def forward(self, raw: torch.Tensor):
        features = F.normalize(raw, dim=-1)
        affinity = features @ self.keys.T
        return features, self.alpha * (-self.beta * (1 - affinity)).exp() @ self.values


class LinearHead(nn.Module):
    """Linear logits added to the similarity logits: α·(f W + b) of unit-norm features f, W (E, C) and b (C,) copied.

    The closed form of GDA (Wang et al., ICLR 2024), a linear probe.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, alpha: float = 1.0):
        super().__init__()
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("bias", bias.detach().clone())
        self.alpha = alpha

    def forward(self, raw: torch.Tensor):
        features = F.normalize(raw, dim=-1)
        return features, self.alpha * (features @ self.weight + self.bias)


class KernelHead(nn.Module):
    """A kernel expansion added to the similarity logits: τ·exp(−β(1 − f·Kᵀ))·A (ProKeR, Bendou et al., CVPR 2025).

    Args:
        keys: K (n, E), normalised here; not learned, so not in the state dict. coefficients: A (n, C), copied.
        beta: sharpness, > 0. scale: τ, which also scales the similarity logits.
    """

    def __init__(self, keys: torch.Tensor, coefficients: torch.Tensor, beta: float, scale: float = 1.0):
        super().__init__()
        if beta <= 0:
            raise ValueError(f"a kernel needs beta > 0, got {beta}")
        self.register_buffer("keys", F.normalize(keys.detach(), dim=-1), persistent=False)
        self.register_buffer("coefficients", scale * coefficients.detach())
        self.beta = beta

    def forward(self, raw: torch.Tensor):
        features = F.normalize(raw, dim=-1)
        return features, (-self.beta * (1 - features @ self.keys.T)).exp() @ self.coefficients
