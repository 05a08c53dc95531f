"""Extra tokens in a vision transformer: a prompt on the image side.

BPT-VLM (Yu et al., IJCAI 2023) adds tokens to the class token and the patches, after the
position embeddings and before the first norm, which applies to them too. Its released
code puts them after the patches; here they follow the class token. They have no
positions, so the features are the same. Like `cbbt.box.text_tower`, this is behind the
wall and used through `BlackBox.encode_images`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import lazy_loader
import torch

open_clip = lazy_loader.load("open_clip")


def token_width(visual: torch.nn.Module) -> int | None:
    """Width of the tokens that an image tower can take; None if it does not pool at a class token."""
    transformer = isinstance(visual, open_clip.transformer.VisionTransformer)
    if not transformer or visual.attn_pool is not None or visual.pool_type != "tok":
        return None
    return visual.class_embedding.shape[0]


@contextlib.contextmanager
def tokens_inserted(visual: torch.nn.Module, tokens: torch.Tensor | None) -> Iterator[None]:
    """In the block, `visual` puts `tokens` (V, width) after the class token of each image; None changes nothing."""
    if tokens is None or not len(tokens):
        yield
        return

    def insert(module, arguments):
        sequence, *rest = arguments  # (B, 1 + patches, width)
        own = tokens.to(sequence).expand(len(sequence), -1, -1)
        return torch.cat([sequence[:, :1], own, sequence[:, 1:]], dim=1), *rest

    hook = visual.ln_pre.register_forward_pre_hook(insert)
    try:
        yield
    finally:
        hook.remove()
