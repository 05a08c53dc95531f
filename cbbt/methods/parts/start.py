"""Initial contexts, class text, adapters and caches, shared by several methods."""

import torch
import torch.nn.functional as F

from cbbt.adapters import CacheAdapter, ResidualAdapter
from cbbt.box.prompts import fill_template, initial_context
from cbbt.learning.fitting import ContextPrompt, Support
from cbbt.methods.parts.heads import best_constants, shot_numbers
from cbbt.seeding import generator_for

# Weights and sharpnesses that `support_cache` chooses from: powers of √2. The weights scale with τ, as the logits do.
WEIGHTS = [2 ** (k / 2) for k in range(-10, 11)]  # α / τ
SHARPNESSES = [2 ** (k / 2) for k in range(-2, 15)]  # β
PUBLISHED_START = 0.01, 5.5  # α / τ (1 at CLIP's τ = 100) and β of Tip-Adapter before its search


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
    """Class features (C, E) before any tuning: at the initial context, or of the hand-written template (`config.start`)."""
    if config.start == "template":
        return box.encode_texts(fill_template(support.template, support.class_names))
    if "token embeddings" not in box.access:  # the same prompt, as text
        return box.encode_texts(fill_template(words_of_context(config), support.class_names))
    return box.encode_prompts(start_context(box, support, config)[None], support.class_names, config.position)[0]


def bare_text(box, words) -> torch.Tensor:
    """Class features (C, E) of the prompt "a <class>." for `words.class_names`."""
    if "token embeddings" not in box.access:
        return box.encode_texts(fill_template("a {}.", words.class_names))
    return ContextPrompt(initial_context(box, generator=None))(box, words)


def words_of_context(config) -> str:
    """The template with the same words as the initial context. Raises ValueError for a context that is not words."""
    if config.context_init in ("random", "zeros") or config.context_length != len(config.context_init.split()):
        raise ValueError(
            f"this box takes only texts, and context_init={config.context_init!r} of length {config.context_length} "
            "cannot be written as words: choose start='template'"
        )
    if config.position != "end":
        raise ValueError(f"this box takes only texts and no position={config.position!r}: choose start='template'")
    return f"{config.context_init} {{}}."


def residual_adapter(box, config) -> tuple[ResidualAdapter, torch.optim.Optimizer]:
    """A new residual adapter and its optimiser."""
    adapter = ResidualAdapter(
        box.embed_dim, config.adapter_reduction, config.adapter_ratio, generator=generator_for(config.seed, "adapter")
    ).to(box.device)
    return adapter, torch.optim.Adam(adapter.parameters(), lr=config.adapter_lr, weight_decay=config.adapter_weight_decay)


def support_cache(text: torch.Tensor, support: Support, config, logit_scale: float) -> CacheAdapter:
    """A cache with one key per shot, the mean of its normalised views.

    α and β are those of the configuration; if one is None, the values that classify
    held-out shots best with class features `text` (C, E), see `held_out_logits`. Ties in
    accuracy go to the lower cross-entropy. With a single shot per class nothing can be held
    out: Tip-Adapter's initial values, with α in proportion to τ.
    """
    keys = F.normalize(support.views, dim=-1).mean(dim=0)
    several = support.labels.bincount().max() > 1
    weights, sharpnesses = (WEIGHTS, SHARPNESSES) if several else ([value] for value in PUBLISHED_START)
    alphas = [logit_scale * weight for weight in weights] if config.cache_alpha is None else [config.cache_alpha]
    betas = sharpnesses if config.cache_beta is None else [config.cache_beta]
    unit = F.normalize(keys, dim=-1)

    pairs = [(alpha, beta) for alpha in alphas for beta in betas]
    candidates = ((pair, held_out_logits(unit, support.labels, text, logit_scale, *pair)) for pair in pairs)
    alpha, beta = pairs[0] if len(pairs) == 1 else best_constants(candidates, support.labels)
    return CacheAdapter(keys, support.labels, len(text), alpha, beta)


def held_out_logits(keys, labels, text, logit_scale: float, alpha: float, beta: float) -> torch.Tensor:
    """Logits (n, C) of each shot from a cache without it: with keys (n, E), labels (n,), class features (C, E).

    The shots are numbered within their classes, and the k-th of all classes are held out
    together, so that no class has one key more than another.
    """
    number = shot_numbers(labels)
    values = F.one_hot(labels, len(text)).to(keys.dtype)
    affinity = (-beta * (1 - keys @ keys.T)).exp() * (number[:, None] != number)
    return logit_scale * keys @ text.T + alpha * affinity @ values


def cache_optimizer(cache: CacheAdapter, config) -> torch.optim.Optimizer:
    """AdamW on the keys, with Tip-Adapter-F's eps."""
    return torch.optim.AdamW([cache.keys], lr=config.cache_lr, eps=1e-4)
