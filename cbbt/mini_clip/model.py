"""The embedded model: an open_clip CLIP of two million parameters, and its tokenizer.

The text tower knows only the words of its world (`captions.known_phrases`). The
tokenizer is CLIP's own byte-pair encoding with the few ids in use renumbered in
their order, so that the end-of-text id stays the largest and arg-max pooling works.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

import lazy_loader
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from cbbt.pretraining import read_texts

from .captions import known_phrases

open_clip = lazy_loader.load("open_clip")

WEIGHTS = Path(__file__).with_name("mini_clip.safetensors")
CONTEXT_LENGTH = 24
PREPROCESS = dict(
    size=32, mode="RGB", mean=(0.45,) * 3, std=(0.27,) * 3, interpolation="bicubic", resize_mode="shortest", fill_color=0
)


@lru_cache(maxsize=1)
def _byte_pairs() -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)


@lru_cache(maxsize=1)
def vocabulary() -> tuple[int, ...]:
    """CLIP's ids of all tokens that the embedded model knows, sorted; the last is end-of-text."""
    bpe = _byte_pairs()
    ids = {token for phrase in known_phrases() for token in bpe.encode(phrase)}
    return tuple(sorted(ids | {0, bpe.sot_token_id, bpe.eot_token_id}))  # 0 pads, as in CLIP


class MiniTokenizer:
    """Texts to ids of the embedded vocabulary: `tokenizer(["a disc."])` is a LongTensor (1, 24).

    Raises ValueError for a text with words that the model never met and for a
    text of more than 22 tokens (start and end take two of the 24 positions).
    """

    def __init__(self) -> None:
        self._bpe = _byte_pairs()
        self._new_id = {old: new for new, old in enumerate(vocabulary())}
        self.context_length = CONTEXT_LENGTH
        self.vocab_size = len(self._new_id)
        self.sot_token_id = self._new_id[self._bpe.sot_token_id]
        self.eot_token_id = self._new_id[self._bpe.eot_token_id]

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without start and end. Raises ValueError for unknown words."""
        tokens = self._bpe.encode(text)
        if not all(token in self._new_id for token in tokens):
            raise ValueError(self._complaint(text))
        return [self._new_id[token] for token in tokens]

    def __call__(self, texts: str | list[str]) -> torch.Tensor:
        """LongTensor (n, 24): start, tokens, end, then zeros."""
        return read_texts(self, texts, "the embedded model")

    def _complaint(self, text: str) -> str:
        words = re.findall(r"[\w'-]+|[^\s\w]+", text)
        unknown = [word for word in words if not all(t in self._new_id for t in self._bpe.encode(word))]
        return (
            f"the embedded model does not know {', '.join(map(repr, unknown))} (in {text!r}): it knows the shapes, "
            "digits, letters, textures, kinds of land and styles of its small world, listed by "
            "cbbt.mini_clip.captions.known_phrases(); use other words or a pretrained backbone"
        )


def build_mini_clip() -> open_clip.CLIP:
    """The architecture with random weights, float32: 32-pixel images, 24 tokens, 128-dimensional features."""
    model = open_clip.CLIP(
        embed_dim=128,
        vision_cfg=dict(image_size=32, layers=(1, 1, 1, 1), width=16, head_width=64, patch_size=None),
        text_cfg=dict(context_length=CONTEXT_LENGTH, vocab_size=len(vocabulary()), width=128, heads=4, layers=3),
    )
    open_clip.model.set_model_preprocess_cfg(model, PREPROCESS)
    return model


def load_mini_clip(weights: Path | None = None) -> open_clip.CLIP:
    """The pre-trained model in eval mode and frozen; `weights` defaults to the shipped file.

    Raises FileNotFoundError for a missing file and ValueError for one that does
    not fit this architecture and vocabulary.
    """
    path = WEIGHTS if weights is None else Path(weights)
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights of the embedded model at {path}: reinstall the package or run notebooks/A1_embedded_model.ipynb"
        )
    model = build_mini_clip()
    try:
        with safe_open(path, "pt") as file:
            known = json.loads((file.metadata() or {}).get("vocabulary", "null"))
        if known is not None and tuple(known) != vocabulary():
            raise ValueError("it was trained with another vocabulary")
        model.load_state_dict(
            {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()}
        )
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} does not fit the embedded model: {error}") from error
    return model.eval().requires_grad_(False)
