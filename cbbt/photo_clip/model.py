"""The photo box as an open_clip model, its tokenizer and its weights.

An open_clip CLIP with a timm trunk, a fixed linear projection of its pooled feature, and a small
causal text tower. The shipped file holds the text tower, the projection and the
vocabulary; the trunk's weights come from a package (`image_tower`).
"""

from __future__ import annotations

from pathlib import Path

import lazy_loader
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from cbbt.pretraining import read_texts

from .captions import told_words
from .image_tower import ARCHITECTURE, EMBED_DIM, trunk_weights

open_clip = lazy_loader.load("open_clip")

WEIGHTS = Path(__file__).with_name("photo_clip.safetensors")
CONTEXT_LENGTH = 32
TEXT = dict(width=192, heads=3, layers=3)
PREPROCESS = dict(
    size=224, mode="RGB", mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", resize_mode="shortest", fill_color=0
)
TRUNK = "visual.trunk."
SINGLE = 512  # CLIP's first ids: the 256 bytes, inside a word and at its end


class PhotoTokenizer:
    """CLIP's byte-pair encoding, with the few tokens in use renumbered in their order.

    A token outside the vocabulary is split into the two that it was merged from, and so on
    down to single bytes, so every text has ids; `knows` tells which words were trained.

    vocabulary: CLIP's ids of the tokens in use, ascending; the last is end-of-text.
    """

    def __init__(self, vocabulary) -> None:
        self.vocabulary = [int(token) for token in vocabulary]
        self._bpe = open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)
        self._merges = list(self._bpe.bpe_ranks)
        self._new_id = {old: new for new, old in enumerate(self.vocabulary)}
        self.context_length = CONTEXT_LENGTH
        self.vocab_size = len(self.vocabulary)
        self.sot_token_id = self._new_id[self._bpe.sot_token_id]
        self.eot_token_id = self._new_id[self._bpe.eot_token_id]

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without start and end."""
        return [new for token in self._bpe.encode(text) for new in self._pieces(token)]

    def decode(self, ids: list[int]) -> str:
        """The text of ids."""
        return self._bpe.decode([self.vocabulary[new] for new in ids])

    def __call__(self, texts: str | list[str]) -> torch.Tensor:
        """LongTensor (n, 32): start, tokens, end, then zeros. Raises ValueError for more than 30 tokens."""
        return read_texts(self, texts, "the photo box")

    def knows(self, word: str) -> bool:
        """Whether captions of the model's training may hold a word, read whole or in pieces."""
        return word.lower() in told_words()

    def _pieces(self, token: int) -> list[int]:
        if token in self._new_id:
            return [self._new_id[token]]
        halves = self._merges[token - SINGLE]
        return [new for half in halves for new in self._pieces(self._bpe.encoder[half])]


def build_photo_clip(vocab_size: int) -> open_clip.CLIP:
    """The architecture with random weights, float32: 224-pixel images, 32 tokens, 512-dimensional features."""
    model = open_clip.CLIP(
        embed_dim=EMBED_DIM,
        vision_cfg=dict(timm_model_name=ARCHITECTURE, timm_pool="", timm_proj="linear", image_size=PREPROCESS["size"]),
        text_cfg=dict(context_length=CONTEXT_LENGTH, vocab_size=vocab_size, **TEXT),
    )
    open_clip.model.set_model_preprocess_cfg(model, PREPROCESS)
    return model


def load_image_tower(model: open_clip.CLIP) -> None:
    """Fill the trunk with the package's weights. Raises FileNotFoundError or ValueError (see `image_tower`)."""
    model.visual.trunk.load_state_dict(trunk_weights(list(model.visual.trunk.state_dict())))


def read_photo_clip(weights: Path | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a file written by `pretrain.export`; `weights` defaults to the shipped file.

    Raises FileNotFoundError for a missing file and ValueError for one of another kind.
    """
    path = WEIGHTS if weights is None else Path(weights)
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights of the photo box at {path}: reinstall the package or run notebooks/A6_photo_model.ipynb"
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} does not fit the photo box: {error}") from error
    if "vocabulary" not in tensors:
        raise ValueError(f"{path} does not fit the photo box: it has no vocabulary")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def load_photo_clip(weights: Path | None = None) -> tuple[open_clip.CLIP, PhotoTokenizer]:
    """The trained model, in eval mode and frozen, and its tokenizer; `weights` defaults to the shipped file.

    Raises FileNotFoundError when that file or the image weights' package is missing, and
    ValueError when one of them is not the expected file.
    """
    state = read_photo_clip(weights)
    vocabulary = state.pop("vocabulary").tolist()
    model = build_photo_clip(len(vocabulary))
    load_image_tower(model)
    trunk = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(TRUNK)}
    try:
        model.load_state_dict(trunk | state)
    except RuntimeError as error:
        raise ValueError(f"{weights or WEIGHTS} does not fit the photo box: {error}") from error
    return model.eval().requires_grad_(False), PhotoTokenizer(vocabulary)
