"""A box of `cbbt serve`, with the methods of a local one.

It holds an address, no weights and no tokenizer. Answers are those of the server's own box, to
the last bit. Losses and logits are computed on the client if features are given, and requested
otherwise; the server then encodes the prompts again for each such request.
"""

from __future__ import annotations

from json import JSONDecodeError, dumps

import torch

from cbbt.box.access import Sealed, ServiceRefused
from cbbt.box.address import check_address, key_for
from cbbt.box.blackbox import BlackBox
from cbbt.box.ledger import Ledger
from cbbt.box.prompts import check_position
from cbbt.box.remote.connection import PATIENCE, BoxChanged, Connection, name_of
from cbbt.box.wire import FACTS, FINGERPRINT, MEDIA_TYPE, WireError, compressed, pack, unpack


class RemoteBox(BlackBox):
    """A black box at an address; see `BlackBox` for its attributes and methods.

    Args:
        address: http://host:port. key: from the server's key file; None: the environment variable `CBBT_KEY`.
        device: where answers are put. patience: seconds for which the server may be unavailable.

    Besides what a local box raises, queries raise `BoxUnavailable`, `BoxChanged`, PermissionError for the key,
    `BudgetExceeded` for the server's budget, `ServiceRefused` for what it does not grant, and
    FloatingPointError for contexts or images that are not finite.
    """

    def __init__(
        self,
        address: str,
        key: str | None = None,
        *,
        device: torch.device,
        ledger: Ledger | None = None,
        patience: float = PATIENCE,
    ):
        self.connection = Connection(check_address(address), key_for(key), patience=patience)
        try:
            facts = self.connection.get("/v1/model").json()
            for name in FACTS:
                setattr(self, name, facts[name])
            self.access = frozenset(facts["access"])
            self._fingerprint, self._largest = facts["fingerprint"], facts["largest_bytes"]
        except (JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{address} is not a `cbbt serve` server: it does not describe its model ({error})") from error
        config = self.preprocess_config.items()
        self.preprocess_config = {name: tuple(value) if isinstance(value, list) else value for name, value in config}
        self.device = device
        self.ledger = ledger or Ledger()
        self._embedded: dict[str, torch.Tensor] = {}  # words → their embeddings, which cost nothing

    def fingerprint(self) -> str:
        return self._fingerprint

    def account(self) -> dict:
        """What the server has counted for this key: its name, and what is spent and left at each grain."""
        return self.connection.get("/v1/account").json()

    def token_embeddings(self, words: str) -> torch.Tensor:
        if words not in self._embedded:
            (self._embedded[words],) = self._ask(
                "token-embeddings", {"embeddings": (None, self.context_dim)}, json={"words": words}
            )
        return self._embedded[words].clone()

    def losses(self, text, images, labels, offsets=None):
        if not isinstance(text, Asked):
            return super().losses(text, images, labels, offsets)
        tensors = {"images": images, "labels": labels} | ({} if offsets is None else {"offsets": offsets})
        with self.ledger.question(loss_queries=len(text)):
            return self._ask("losses", {"losses": (len(text),)}, *text.question(), tensors)[0]

    def logits(self, text, images):
        """Raises `ServiceRefused`, and counts nothing, if logits are not given."""
        if not isinstance(text, Asked):
            return super().logits(text, images)
        if "logits" not in self.access:
            raise ServiceRefused(f"{self.connection.address} gives no logits")
        with self.ledger.question(loss_queries=len(text)):
            shape = (len(text), len(images), text.shape[1])
            return self._ask("logits", {"logits": shape}, *text.question(), {"images": images})[0]

    def predictions(self, text: Asked, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Class (B,) and its probability (B,) of each image, by features (B, E), for one prompt set (1, C); one loss query."""
        with self.ledger.question(loss_queries=1):
            shapes = {"labels": (len(images),), "probabilities": (len(images),)}
            return self._ask("predictions", shapes, *text.question(), {"images": images})

    def _images(self, pixels, normalize, tokens):
        tensors = {"pixels": pixels.float()} | ({} if tokens is None or not len(tokens) else {"tokens": tokens})
        return self._ask("images", {"features": (len(pixels), self.embed_dim)}, {"normalize": normalize}, tensors)[0]

    def _read_prompts(self, contexts, names, position):
        check_position(position)
        expected = (self.context_dim,) if getattr(contexts, "ndim", 0) == 3 else (len(names), self.context_dim)
        shape = tuple(getattr(contexts, "shape", ()))
        if len(shape) not in (3, 4) or not shape[0] or (*shape[1:-2], shape[-1]) != expected:
            forms = f"(N, M, {self.context_dim}) or (N, {len(names)}, M, {self.context_dim})"
            raise ValueError(f"contexts must be {forms}, got {shape or type(contexts).__name__}")
        return contexts, names, position

    def _prompts(self, contexts, names, position):
        question = {"class_names": names, "position": position}, {"contexts": contexts.float()}
        if not self.gives_features:
            return Asked.of(len(contexts), len(names), *question)
        return self._ask("prompts", {"features": (len(contexts), len(names), self.embed_dim)}, *question)[0]

    def _read_texts(self, texts):
        return texts

    def _texts(self, texts):
        if not self.gives_features:
            return Asked.of(1, len(texts), {"texts": texts}, {})[0]
        return self._ask("texts", {"features": (len(texts), self.embed_dim)}, json={"texts": texts})[0]

    def _ask(
        self, path: str, shapes: dict[str, tuple], words=None, *tensors: dict[str, torch.Tensor], json=None
    ) -> list[torch.Tensor]:
        """The tensors that the server returns for words and tensors, or for JSON.

        `shapes`: the name and shape of each (None: any length).
        """
        if json is not None:
            content, headers = dumps(json).encode(), {"Content-Type": "application/json"}
        else:
            named = {name: tensor for group in tensors for name, tensor in group.items()}
            for name, tensor in named.items():
                if tensor.is_floating_point() and not tensor.isfinite().all():
                    raise FloatingPointError(f"{name} sent to {self.connection.address} must be finite")
            content, headers = pack(named, words), {"Content-Type": MEDIA_TYPE}
        if len(content) > self._largest:
            raise ValueError(
                f"the request has {len(content)} bytes, {self.connection.address} takes {self._largest}: send smaller batches"
            )
        headers |= {"Idempotency-Key": name_of(self.ledger, path, content), "If-Match": f'"{self._fingerprint}"'}
        if path == "images":
            content, headers = compressed(content), headers | {"Content-Encoding": "zstd"}
        response = self.connection.post(f"/v1/{path}", content, headers)
        if response.headers.get(FINGERPRINT) != self._fingerprint:
            raise BoxChanged(f"{self.connection.address} no longer serves the model that this box was made for")
        try:
            answers, _ = unpack(response.content)
            found = [answers[name] for name in shapes]
        except (WireError, KeyError) as error:
            raise ValueError(f"unexpected answer of {self.connection.address} to {path}: {error}") from error
        for tensor, (name, shape) in zip(found, shapes.items()):
            if tensor.ndim != len(shape) or any(size not in (None, got) for size, got in zip(shape, tensor.shape)):
                raise ValueError(f"{self.connection.address} answered {name} of shape {tuple(tensor.shape)}, expected {shape}")
        return [tensor.to(self.device) for tensor in found]


class Asked(Sealed):
    """Prompts whose features are not given: row and column of each (…, C, 2), and the request that they belong to.

    Whole sets picked from it, in any shape, are queried with the contexts of that request.
    """

    @classmethod
    def of(cls, sets: int, classes: int, words: dict, tensors: dict) -> Asked:
        rows, columns = torch.meshgrid(torch.arange(sets), torch.arange(classes), indexing="ij")
        asked = torch.stack([rows, columns], dim=-1).as_subclass(cls)
        asked.words, asked.tensors = words, tensors
        return asked

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), named=None):
        result = super().__torch_function__(function, types, arguments, named)
        source = arguments[0]
        for part in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(part, Asked):
                part.words, part.tensors = source.words, source.tensors
        return result

    def question(self) -> tuple[dict, dict[str, torch.Tensor]]:
        """Words and tensors that query these sets (N, C). Raises ServiceRefused for anything but whole sets."""
        picked = self.as_subclass(torch.Tensor)
        classes = len(self.words.get("class_names") or self.words["texts"])
        if picked.ndim != 3 or picked.shape[1] != classes or not (picked[..., 1] == torch.arange(classes)).all():
            raise ServiceRefused("this service gives no prompt features: only whole sets of classes can be queried")
        return self.words, {name: tensor[picked[:, 0, 0]] for name, tensor in self.tensors.items()}

    def classify(self, features: torch.Tensor, box: RemoteBox) -> torch.Tensor:
        """Logits (B, C); if the server gives only losses, made from the class that it predicts and its probability."""
        whole = self[None]
        if "logits" in box.access:
            return box.logits(whole, features)[0]
        labels, probabilities = box.predictions(whole, features)
        sure, classes = probabilities.double().clamp(1e-12, 1 - 1e-12)[:, None], self.shape[0]
        logits = ((1 - sure) / max(classes - 1, 1)).log().expand(-1, classes)
        return logits.scatter(1, labels[:, None], sure.log()).float()
