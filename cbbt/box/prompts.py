"""Prompts: class names, templates and contexts.

A learned prompt is `[SOS] v_1 … v_M <class name> . [EOT]` (CoOp, Zhou et al.,
IJCV 2022): the M context vectors v are rows of a float tensor in the space of
token embeddings, the rest are ordinary tokens. The class name may be at the
end, in the middle or in front of the context. A context is *class-shared*,
shape (M, D), or *class-specific*, shape (C, M, D).
"""

from __future__ import annotations

import unicodedata
from textwrap import shorten

import torch

POSITIONS = ("end", "middle", "front")
MARKS = ("<start_of_text>", "<end_of_text>", "<|startoftext|>", "<|endoftext|>")  # open_clip's, and CLIP's own


def unmarked(text: str) -> str:
    """`text` itself, or ValueError if it holds a start- or end-of-text token, where the tokenizer would cut it."""
    if any(mark in text.lower() for mark in MARKS):
        raise ValueError(f"{shorten(text, 100)!r} holds a start- or end-of-text token")
    return text


def readable(class_name: str) -> str:
    """A class name as a prompt has it: Unicode form NFC, spaces for underscores. Raises ValueError as `unmarked` does."""
    return unicodedata.normalize("NFC", unmarked(class_name)).replace("_", " ").strip()


def fill_template(template: str, class_names) -> list[str]:
    """One sentence per class. Raises ValueError when `template` lacks `{}`, and as `unmarked` does."""
    if "{}" not in template:
        raise ValueError(f"a template needs {{}} where the class name goes, got {template!r}")
    return [unmarked(template).replace("{}", readable(name)) for name in class_names]


def check_position(position: str) -> str:
    """`position` itself, or ValueError naming the choices."""
    if position not in POSITIONS:
        raise ValueError(f"class-name position {position!r} is unknown, choose from {', '.join(POSITIONS)}")
    return position


def initial_context(
    box, init: str = "a", length: int = 1, n_classes: int | None = None, *, generator: torch.Generator
) -> torch.Tensor:
    """The initial context, (M, D) or, given `n_classes`, (C, M, D).

    `init` is a text whose token embeddings are repeated until there are `length`
    (CBBT's released code: "a" for M = 1, "a photo" for 2, "a photo of a" for 4, 8
    and 16), "random" for N(0, 0.02²) drawn from `generator` (CoOp, M = 16), or
    "zeros". Raises ValueError when the number of tokens does not divide `length`.
    """
    if length < 1:
        raise ValueError(f"a context needs at least one vector, got length {length}")
    if init == "random":
        context = 0.02 * torch.randn(length, box.context_dim, generator=generator)
    elif init == "zeros":
        context = torch.zeros(length, box.context_dim)
    else:
        context = box.token_embeddings(init).cpu()
        if length % len(context):
            raise ValueError(
                f"initial words {init!r} are {len(context)} tokens, but the context has {length} vectors: "
                f"use words whose number of tokens divides {length}, 'random' or 'zeros'"
            )
        context = context.repeat(length // len(context), 1)
    if n_classes is not None:
        context = context.expand(n_classes, *context.shape)
    return context.to(box.device).clone()
