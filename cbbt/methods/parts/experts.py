"""The experts of CBBT+: classifiers of the same shots, with the text of the initial prompt, and their pooling.

Each expert is a function (box, support, config, session, text (C, E)) → an adapter and the factor of the
similarities with the text that its logits are added to; `EXPERTS` finds one by name. None queries the box.
Their log probabilities are pooled with the weights that do best on held-out shots.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from cbbt.adapters import KernelHead, LinearHead, LinearMap
from cbbt.learning.fitting import Classifier, Support
from cbbt.learning.tuning import tune
from cbbt.methods.lfa import aligned, shrunk
from cbbt.methods.parts.heads import gda, kernel_ridge, shot_numbers
from cbbt.methods.parts.start import residual_adapter

SHARPNESS = 32.0  # factor on the kernel regression's scores, which lie in 0 to 1 whatever the box's τ
FOLDS = 4  # of the shots, to choose the experts' weights

Expert = Callable[..., tuple[nn.Module, float]]


def kernel(box, support, config, session, text) -> tuple[nn.Module, float]:
    """Kernel ridge regression from the cosines with `text` to the labels (ProKeR, Bendou et al., CVPR 2025)."""
    raw, labels = support.whole()
    features, settings = F.normalize(raw, dim=-1), config.settings
    coefficients = kernel_ridge(features, labels, features @ text.T, settings.beta, settings.ridge)
    return KernelHead(features, coefficients, settings.beta, SHARPNESS), SHARPNESS


def adapter(box, support, config, session, text) -> tuple[nn.Module, float]:
    """CBBT's residual adapter, trained against `text`."""
    module, optimizer = residual_adapter(box, config)
    unseen = dataclasses.replace(session, observe=lambda classifier: {}, checkpoint=None)
    tune(box, support, config, unseen, adapter=module, adapter_optimizer=optimizer, text=text)
    return module.requires_grad_(False), box.logit_scale


def orthogonal_map(box, support, config, session, text) -> tuple[nn.Module, float]:
    """The orthogonal map from the shots to their text, shrunk towards the identity (LFA, Ouali et al., ICCV 2023)."""
    features = F.normalize(support.views, dim=-1)
    return LinearMap(shrunk(aligned(features, support.labels, text), config.settings.shrinkage)), box.logit_scale


def discriminant(box, support, config, session, text) -> tuple[nn.Module, float]:
    """Gaussian discriminant analysis of the shots alone, without text (Wang et al., ICLR 2024)."""
    raw, labels = support.whole()
    return LinearHead(*gda(F.normalize(raw, dim=-1), labels, len(text))), 0.0


EXPERTS: dict[str, Expert] = {"kernel": kernel, "adapter": adapter, "map": orthogonal_map, "gda": discriminant}


class Experts(nn.Module):
    """Pooled experts, added to the similarities: (unit-norm features, Σ_h w_h log p_h), a logarithmic opinion pool.

    The state dict holds what was learned: neither `text` nor the shots. Source: Genest & Zidek, Statistical Science 1986.

    Args:
        members: adapters, with the factors of their similarities with `text` (C, E). weights: w (H,).
    """

    def __init__(self, members: list[tuple[nn.Module, float]], text: torch.Tensor, weights: torch.Tensor):
        super().__init__()
        self.adapters = nn.ModuleList(module for module, _ in members)
        self.scales = [scale for _, scale in members]
        self.register_buffer("text", text, persistent=False)
        self.register_buffer("weights", weights)

    def votes(self, raw: torch.Tensor) -> torch.Tensor:
        """Each expert's log probabilities (H, B, C) for raw image features (B, E)."""
        experts = (Classifier(self.text, module, scale) for module, scale in zip(self.adapters, self.scales))
        return torch.stack([expert.logits(raw).log_softmax(dim=-1) for expert in experts])

    def forward(self, raw: torch.Tensor):
        return F.normalize(raw, dim=-1), torch.tensordot(self.weights.to(raw), self.votes(raw), dims=1)


def fitted_experts(box, support: Support, config, session, text) -> Experts:
    """The experts of `config.settings.experts`, fitted to the shots and weighted on held-out ones.

    The k-th shots of all classes are held out together, in at most `FOLDS` folds, and the experts fitted
    again without each fold. With one shot per class nothing can be held out: all weights are equal.
    """
    names, folds = config.settings.experts, shot_numbers(support.labels) % FOLDS
    weights = torch.full((len(names),), 1 / len(names), device=text.device)

    def fit(rows: torch.Tensor) -> Experts:
        part = dataclasses.replace(support, views=support.views[:, rows], labels=support.labels[rows])
        return Experts([EXPERTS[name](box, part, config, session, text) for name in names], text, weights)

    if folds.any() and len(names) > 1:
        parts = [folds == fold for fold in folds.unique()]
        votes = torch.cat([fit(~held).votes(support.views[:, held].flatten(0, 1)) for held in parts], dim=1)
        labels = torch.cat([support.labels[held].repeat(len(support.views)) for held in parts])
        weights = pool_weights(votes, labels, len(support.labels))
    return fit(torch.ones_like(folds, dtype=torch.bool))


def pool_weights(votes: torch.Tensor, labels: torch.Tensor, shots: int) -> torch.Tensor:
    """Weights w (H,) > 0 that minimise the cross-entropy of Σ_h w_h votes_h, with a log-normal prior around 1/H of variance 1.

    votes: log probabilities (H, n, C) of held-out features. labels: int64 (n,). shots: how many of the n are independent
    (views of one shot are not), which sets the weight of the data against the prior.
    """
    logs = torch.zeros(len(votes), dtype=torch.float64, device=votes.device, requires_grad=True)
    votes = votes.double()
    solver = torch.optim.LBFGS([logs], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        solver.zero_grad()
        pooled = torch.tensordot(logs.exp() / len(votes), votes, dims=1)
        loss = F.cross_entropy(pooled, labels) + logs.square().sum() / (2 * shots)
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
    return (logs.detach().exp() / len(votes)).float()
