"""The wall: a vision-language model that can only be queried.

`BlackBox` answers four kinds of query (image features, prompt features, text features,
losses) without gradients and counts each in its ledger. It holds no model: the
model is kept in `_behind`, keyed by the box. `WhiteBox` is a separate class for the
white-box reference (CoOp) and for analysis; it alone gives gradients with respect to
the contexts. Neither gives weights.

The public methods check a query and charge the ledger; the answers come from the
methods that begin with an underscore, which other kinds of box override: a remote
model, or a feature service (`cbbt.box.remote`).
"""

from __future__ import annotations

import weakref

import torch
import torch.nn.functional as F

from cbbt.box.access import GIVES, TAKES, ServiceRefused
from cbbt.box.address import is_address
from cbbt.box.device import device_of, full_precision
from cbbt.box.image_tokens import token_width, tokens_inserted
from cbbt.box.ledger import Ledger
from cbbt.box.memory import chunk_size
from cbbt.box.models import LoadedModel, load_model, transform_of
from cbbt.box.text_tower import TextTower

# The served models; the one place that joins a box to its model.
_behind: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


class BlackBox:
    """A CLIP-like model behind a query interface; made by `load_black_box`.

    Attributes:
        name: backbone name. device: the torch.device that holds the answers.
        context_dim: D, width of a context vector. embed_dim: E, width of features.
        image_size: side of the square input in pixels.
        image_token_dim: width of the image tower's tokens, or None if it takes none.
        preprocess_config: how images are preprocessed (open_clip's keys: size, mean, std, …).
        logit_scale: τ, the factor on cosine similarities (a float, > 0).
        access: what the box takes and gives (`cbbt.box.access`).
        ledger: the `Ledger` that counts every query.
    """

    differentiable = False
    connection = None  # set for a remote model (`cbbt.box.remote.connection`)

    def __init__(self, loaded: LoadedModel, device: torch.device, ledger: Ledger | None = None):
        tower = TextTower(loaded.model, loaded.tokenizer)
        _behind[self] = (loaded, tower)
        self.name = loaded.name
        self.device = device
        self.context_dim = tower.context_dim
        self.embed_dim = int(tower.encode_sentences(tower.tokens.sentences(["a"])).shape[-1])
        self.preprocess_config = dict(loaded.preprocess_config)
        size = self.preprocess_config["size"]
        self.image_size = size if isinstance(size, int) else size[0]
        self.image_token_dim = token_width(loaded.model.visual)
        self.logit_scale = float(loaded.model.logit_scale.exp())
        self.access = frozenset((*TAKES, *GIVES)) - ({"image tokens"} if self.image_token_dim is None else set())
        self.ledger = ledger or Ledger()

    @property
    def gives_features(self) -> bool:
        """Whether prompt features are given, or sealed (`cbbt.box.access`)."""
        return "features" in self.access

    def with_ledger(self, ledger: Ledger) -> BlackBox:
        """A second handle on the same model, counted in another ledger."""
        handle = object.__new__(type(self))
        vars(handle).update(vars(self), ledger=ledger)
        if self in _behind:  # a remote box has no model there
            _behind[handle] = _behind[self]
        return handle

    def fingerprint(self) -> str:
        """Sixteen hex digits that identify name, weights, activation and preprocessing."""
        return _behind[self][0].fingerprint()

    def preprocess(self, image) -> torch.Tensor:
        """A PIL image as the model expects it at test time, float (3, H, W); no query."""
        return transform_of(**self.preprocess_config)(image)

    def encode_images(self, pixels: torch.Tensor, normalize: bool = True, tokens: torch.Tensor | None = None) -> torch.Tensor:
        """Features (B, E) of preprocessed images (B, 3, H, W); unit norm, or raw.

        `tokens` (V, `image_token_dim`) are put between the class token and the
        patches of every image. Raises ValueError for another shape, or for tokens
        given to a box that takes none.
        """
        expected, got = (3, self.image_size, self.image_size), tuple(getattr(pixels, "shape", ()))
        if len(got) != 4 or not got[0] or got[1:] != expected:
            raise ValueError(f"expected images of shape (B, {', '.join(map(str, expected))}), got {got}")
        if not (isinstance(pixels, torch.Tensor) and pixels.is_floating_point()):
            raise ValueError(f"expected images as `preprocess` returns them, a float tensor, got {pixels.dtype}")
        if tokens is not None and (tokens.ndim != 2 or tokens.shape[1] != self.image_token_dim):
            takes = f"image tokens of shape (V, {self.image_token_dim})" if self.image_token_dim else "no image tokens"
            raise ValueError(f"{self.name!r} takes {takes}, got {tuple(tokens.shape)}")
        with self.ledger.question(images=len(pixels)), torch.no_grad(), full_precision():
            return self._images(pixels, normalize, tokens)

    def _images(self, pixels, normalize, tokens) -> torch.Tensor:
        # An image's intermediate results take up to 32 times its pixels (RN50 24, RN50x16 29, ViT-B-16 16).
        step = chunk_size(self.device, 32 * pixels[:1].numel() * 4)
        model = _behind[self][0].model
        with tokens_inserted(model.visual, tokens):
            parts = [model.encode_image(part.to(self.device).float(), normalize=normalize).float() for part in pixels.split(step)]
        return torch.cat(parts)

    def encode_prompts(self, contexts: torch.Tensor, class_names, position: str = "end") -> torch.Tensor:
        """Unit-norm text features (N, C, E) of N contexts with C class names.

        `contexts` is (N, M, D), or (N, C, M, D) for class-specific contexts;
        `position` of the class name is "end", "middle" or "front".
        Raises ValueError, and counts nothing, for wrong shapes, names that do not fit, or no names;
        warns once about words that the tokenizer splits into letters or bytes.
        """
        question = self._read_prompts(contexts, _listed("class_names", class_names), position)
        with self.ledger.question(class_prompts=len(contexts) * len(question[1])):
            with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()), full_precision():
                return self._prompts(*question)

    def _read_prompts(self, contexts, names: list[str], position: str) -> tuple:
        """What `_prompts` takes: contexts, names and position. Every invalid input is refused here, before it is counted."""
        return _behind[self][1].read(contexts, names, position)

    def _prompts(self, contexts, names, position) -> torch.Tensor:
        return _behind[self][1].evaluate(contexts, names, position)

    def encode_texts(self, texts: list[str]) -> torch.Tensor:
        """Unit-norm features (n, E) of plain sentences; each counts as one class prompt.

        Raises ValueError, and counts nothing, for a sentence that is too long or that the tokenizer refuses.
        """
        question = self._read_texts(_listed("texts", texts))
        with self.ledger.question(class_prompts=len(question)), torch.no_grad(), full_precision():
            return self._texts(question)

    def _read_texts(self, texts: list[str]):
        """What `_texts` takes, one entry per text. Every invalid input is refused here."""
        return _behind[self][1].tokens.sentences(texts)

    def _texts(self, ids) -> torch.Tensor:
        return _behind[self][1].encode_sentences(ids)

    def token_embeddings(self, words: str) -> torch.Tensor:
        """A copy of the embeddings (tokens, D) of `words`: an initial context. Raises ValueError if `words` has no token."""
        tower = _behind[self][1]
        ids = tower.tokens.ids(words)
        if not ids:
            raise ValueError(f"{words!r} has no token")
        with torch.no_grad():
            return tower.embed(ids).clone()

    def losses(self, text: torch.Tensor, images: torch.Tensor, labels: torch.Tensor, offsets=None) -> torch.Tensor:
        """Cross-entropy (N,) of each of N prompt sets on one batch; N loss queries.

        Args:
            text: unit-norm class features (N, C, E), one set per context.
            images: unit-norm image features (B, E). labels: int64 (B,).
            offsets: logits (B, C) of an output-side adapter to add, or None.

        The logits are τ · images · textᵀ + offsets. One product covers as many sets as
        fit into the device's memory.
        """
        self.ledger.charge("loss_queries", len(text))
        # Held in memory at once for each logit: the product, the sum, the log-probability, and a spare.
        step = chunk_size(self.device, 4 * 4 * len(images) * text.shape[1])
        with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()), full_precision():
            return torch.cat([self._losses(part, images, labels, offsets) for part in text.split(step)])

    def logits(self, text: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, B, C) of N prompt sets (N, C, E) for unit-norm images (B, E); N loss queries.

        For methods that work on logits; the whole answer is held in memory.
        """
        self.ledger.charge("loss_queries", len(text))
        with torch.no_grad(), full_precision():
            return self._logits(text, images).movedim(1, 0)

    def _logits(self, text, images):
        """τ · images · textᵀ as (B, N, C), one product."""
        n_sets, n_classes, width = text.shape
        return self.logit_scale * (images @ text.reshape(-1, width).T).view(len(images), n_sets, n_classes)

    def _losses(self, text, images, labels, offsets):
        n_sets, logits = len(text), self._logits(text, images)
        if offsets is not None:
            logits = logits + offsets[:, None]
        # mean over the batch of −log softmax at the label, for every set
        log_probability = F.log_softmax(logits, dim=-1)
        chosen = labels[:, None, None].expand(-1, n_sets, 1)
        return -log_probability.gather(-1, chosen)[..., 0].mean(dim=0)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, D={self.context_dim}, E={self.embed_dim}, {self.ledger})"

    def __reduce__(self):
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied: the model stays behind the wall")


class WhiteBox(BlackBox):
    """The same model, with gradients with respect to contexts; not for black-box methods."""

    differentiable = True

    def __init__(self, loaded: LoadedModel, device: torch.device, ledger: Ledger | None = None):
        super().__init__(loaded, device, ledger)
        self.access |= {"gradients"}


def _listed(title: str, texts) -> list[str]:
    """`texts` as a list, or ValueError."""
    listed = [] if isinstance(texts, str) else list(texts)
    if not listed or not all(isinstance(text, str) for text in listed):
        raise ValueError(f"{title} should be a sequence of at least one text, got {texts!r}")
    return listed


def load_black_box(
    name: str = "mini",
    pretrained: str | None = "default",
    *,
    device: str | None = None,
    ledger: Ledger | None = None,
    key: str | None = None,
) -> BlackBox:
    """Load a model as a black box, or connect to a remote one.

    Args:
        name: "mini", "photo", an open_clip architecture such as "RN50" or "ViT-B-16", or an address:
            of `cbbt serve` (http://host:8000), or of a feature service (embeddings+http://host/v1,
            with its model's name as `pretrained`). See `cbbt.box.remote`.
        pretrained: "default" (shipped weights of "mini" and "photo", else OpenAI's), a tag of
            open_clip, a local weights file, "tag@file" where the file alone does not say what it
            was trained with (see `cbbt.box.weights`), or None for random weights.
        device: "cpu", "cuda" or "cuda:1"; "auto" or None: a GPU when there is one.
        ledger: counts and budgets; a fresh one without budget if None.
        key: API key for an address; the environment variable CBBT_KEY if None.

    Raises `cbbt.box.models.ModelError` for an unknown name, and for weights that do not fit or whose training
    settings are unknown; ValueError for a device that is missing or not supported.
    """
    device = device_of(device)
    if is_address(name):
        from cbbt.box.remote.addressed import box_at  # here, because it imports this module

        return box_at(name, pretrained, key, device=device, ledger=ledger)
    return BlackBox(load_model(name, pretrained, device), device, ledger)


def load_white_box(
    name: str = "mini", pretrained: str | None = "default", *, device: str | None = None, ledger: Ledger | None = None
) -> WhiteBox:
    """Like `load_black_box`, but the box gives gradients. Raises ServiceRefused for an address."""
    if is_address(name):
        raise ServiceRefused(f"{name} gives no gradients: the white box is a local model")
    device = device_of(device)
    return WhiteBox(load_model(name, pretrained, device), device, ledger)
