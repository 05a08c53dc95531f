"""The pieces from which several methods start: context, adapter, cache."""

import torch

from cbbt.adapters import CacheAdapter, ResidualAdapter
from cbbt.box.prompts import initial_context
from cbbt.learning.fitting import Classifier, Support
from cbbt.seeding import generator_for

# Weights and sharpnesses tried by `search_cache`: powers of √2.
ALPHAS = [0.0] + [2 ** (k / 2) for k in range(-6, 9)]
BETAS = [2 ** (k / 2) for k in range(-2, 13)]


def start_context(box, support, config) -> torch.Tensor:
    """The initial context, (M, D), or (C, M, D) if `config.class_specific`."""
    return initial_context(
        box,
        config.context_init,
        config.context_length,
        len(support.class_names) if config.class_specific else None,
        generator=generator_for(config.seed, "context"),
    )


def start_text(box, support, config) -> torch.Tensor:
    """Class features (C, E) at the initial context, before any tuning."""
    return box.encode_prompts(start_context(box, support, config)[None], support.class_names, config.position)[0]


def residual_adapter(box, config) -> tuple[ResidualAdapter, torch.optim.Optimizer]:
    """A fresh residual adapter and its optimiser."""
    adapter = ResidualAdapter(
        box.embed_dim, config.adapter_reduction, config.adapter_ratio, generator=generator_for(config.seed, "adapter")
    ).to(box.device)
    return adapter, torch.optim.Adam(adapter.parameters(), lr=config.adapter_lr)


def support_cache(support: Support, config) -> CacheAdapter:
    """A cache with one key per shot, the mean of its normalised views."""
    keys = torch.nn.functional.normalize(support.views, dim=-1).mean(dim=0)
    return CacheAdapter(keys, support.labels, len(support.class_names), config.cache_alpha, config.cache_beta)


def cache_optimizer(cache: CacheAdapter, config) -> torch.optim.Optimizer:
    """AdamW on the keys, with Tip-Adapter-F's eps."""
    return torch.optim.AdamW([cache.keys], lr=config.cache_lr, eps=1e-4)


def search_cache(classifier: Classifier, support: Support) -> None:
    """Set α and β of `classifier.adapter` to the best on the validation shots.

    Ties in accuracy, frequent with four shots a class, go to the lower
    cross-entropy. Without validation shots the values stay as they are.
    """
    if not len(support.val_labels):
        return
    cache = classifier.adapter

    def quality(alpha: float, beta: float) -> tuple[float, float]:
        cache.alpha, cache.beta = alpha, beta
        logits = classifier.logits(support.val_features)
        accuracy = (logits.argmax(dim=1) == support.val_labels).double().mean().item()
        return accuracy, -torch.nn.functional.cross_entropy(logits, support.val_labels).item()

    cache.alpha, cache.beta = max(((a, b) for a in ALPHAS for b in BETAS), key=lambda pair: quality(*pair))
