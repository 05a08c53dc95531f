"""The HTTP endpoints of a served box.

Tensors are sent and returned as safetensors (`cbbt.box.wire`), texts as JSON. A request is
checked, in this order, for its key (401), size (413) and pace (408), form (415, 422), what is
granted (403), `If-Match` with the fingerprint of the expected model (412), a place in the queue
(503), and budget (402); only then is it charged and answered. What the model refuses is not charged.

A request cannot name a file, a module or an address; no answer and no error reveals more of
the model than was granted.
"""

import asyncio
from typing import Annotated

import torch
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from PIL import Image
from pydantic import ValidationError

from cbbt.box.blackbox import BlackBox
from cbbt.box.ledger import GRAINS
from cbbt.box.server.accounts import Account, ServerLedger, digest_of
from cbbt.box.server.doors import Bounds, Caller, Doors, Limits
from cbbt.box.server.forms import Embeddings, ImageInput, Phrase, Sentences, WordsOfImages, WordsOfPrompts, decoded_image, written
from cbbt.box.server.worker import Question
from cbbt.box.wire import FACTS, MEDIA_TYPE, WireError, pack


def make_app(
    box: BlackBox, access: frozenset[str], accounts: dict[str, Account], ledger: ServerLedger, limits: Limits
) -> FastAPI:
    """The application that serves `box`.

    access: what is granted (`cbbt.box.access.granted`). accounts: those of `read_keys`; none: every caller is served,
    on one account without a budget. ledger: where the counts are kept.
    """
    doors = Doors(box, access, accounts, ledger, limits)
    app = FastAPI(title="A vision-language model behind a wall", version="1", description=__doc__)
    app.add_middleware(Bounds, doors=doors)
    Asks = Annotated[Caller, Depends(doors.caller)]

    @app.exception_handler(WireError)
    async def no_message(request: Request, error: WireError):
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(ValidationError)
    async def no_words(request: Request, error: ValidationError):
        lines = [f"{'.'.join(map(str, each['loc'])) or 'words'}: {each['msg']}" for each in error.errors()[:5]]
        return JSONResponse({"detail": "; ".join(lines)}, 422)

    @app.get("/health")
    def health() -> dict[str, str]:
        """Whether the server is up; needs no key and says nothing about the model."""
        return {"status": "ok"}

    @app.get("/v1/model", responses=ERRORS)
    def model(caller: Asks) -> dict:
        """The served model: name, dimensions, preprocessing, logit scale, fingerprint, what it takes and gives, limits."""
        return {name: getattr(box, name) for name in FACTS} | {
            "fingerprint": doors.fingerprint,
            "access": sorted(doors.access),
            "largest_bytes": limits.bytes,
            "joins": limits.join,
        }

    @app.get("/v1/account", responses=ERRORS)
    def account(caller: Asks) -> dict:
        """What the account has spent, and what is left of its budget (null: no limit)."""
        spent, budget = ledger.spent(caller.account), caller.account.budget
        left = {grain: budget[grain] - spent[grain] if grain in budget else None for grain in GRAINS}
        return {"name": caller.account.name, "spent": spent, "left": left}

    @app.post("/v1/token-embeddings", response_class=Tensors, responses=ERRORS)
    async def token_embeddings(caller: Asks, phrase: Phrase) -> Response:
        """Token embeddings (M, D) of some words; costs nothing."""
        doors.require("token embeddings")
        try:
            return Tensors({"embeddings": box.token_embeddings(phrase.words)})
        except ValueError as error:
            raise HTTPException(422, str(error)) from None

    @app.post(
        "/v1/images", response_class=Tensors, responses=ERRORS, openapi_extra=_tensors_in("pixels (B, 3, H, W); tokens (V, W)")
    )
    async def images(caller: Asks, request: Request) -> Response:
        """Features (B, E) of preprocessed images; B images."""
        tensors, words, digest = await doors.message(request, WordsOfImages, pixels="BCHW", tokens="?VW")
        doors.require("pixels", *(["image tokens"] if "tokens" in tensors else []))
        pixels, tokens = tensors["pixels"], tensors.get("tokens")
        tokens = None if tokens is None else tokens.to(box.device)
        kind = ("images", pixels.shape[1:], words.normalize) if tokens is None else None
        question = Question(pixels, lambda rows: box.encode_images(rows, words.normalize, tokens), kind)
        return Tensors(
            {"features": await doors.answer(caller, question, digest, len(pixels) * box.embed_dim, images=len(pixels))}
        )

    @app.post(
        "/v1/prompts", response_class=Tensors, responses=ERRORS, openapi_extra=_tensors_in("contexts (N, M, D) or (N, C, M, D)")
    )
    async def prompts(caller: Asks, request: Request) -> Response:
        """Features (N, C, E) of contexts with class names; N · C class prompts."""
        tensors, words, digest = await doors.message(request, WordsOfPrompts, contexts="NMD NCMD")
        doors.require("features", "token embeddings")
        contexts, _, count = doors.prompts(tensors, words)
        kind = ("prompts", contexts.shape[1:], words.position, tuple(words.class_names))
        question = Question(contexts, lambda rows: doors.text(rows, words), kind)
        return Tensors({"features": await doors.answer(caller, question, digest, count * box.embed_dim, class_prompts=count)})

    @app.post("/v1/texts", response_class=Tensors, responses=ERRORS)
    async def texts(caller: Asks, sentences: Sentences) -> Response:
        """Features (n, E) of sentences; n class prompts."""
        doors.require("features", "text")
        rows, count = torch.arange(len(sentences.texts)), len(sentences.texts)
        question = Question(rows, lambda rows: box.encode_texts([sentences.texts[row] for row in rows]))
        digest = digest_of(sentences.model_dump_json().encode())
        return Tensors({"features": await doors.answer(caller, question, digest, count * box.embed_dim, class_prompts=count)})

    @app.post(
        "/v1/logits", response_class=Tensors, responses=ERRORS, openapi_extra=_tensors_in("contexts, or texts; images (B, E)")
    )
    async def logits(caller: Asks, request: Request) -> Response:
        """Logits (N, B, C) of prompts for images, given by their features; N loss queries and N · C class prompts."""
        tensors, words, digest = await doors.message(request, WordsOfPrompts, contexts="?NMD NCMD", images="BE")
        doors.require("logits")
        contexts, sets, count = doors.prompts(tensors, words)
        features = doors.images(tensors)
        question = Question(contexts, lambda rows: box.logits(doors.text(rows, words), features))
        cost = {"class_prompts": count, "loss_queries": sets}
        return Tensors({"logits": await doors.answer(caller, question, digest, count * len(features), **cost)})

    @app.post(
        "/v1/losses",
        response_class=Tensors,
        responses=ERRORS,
        openapi_extra=_tensors_in("contexts, or texts; images (B, E); labels int64 (B,); offsets (B, C)"),
    )
    async def losses(caller: Asks, request: Request) -> Response:
        """Cross-entropy (N,) of prompts on a batch of images; N loss queries and N · C class prompts."""
        shapes = {"contexts": "?NMD NCMD", "images": "BE", "labels": "B", "offsets": "?BC"}
        tensors, words, digest = await doors.message(request, WordsOfPrompts, **shapes)
        doors.require("losses")
        contexts, sets, count = doors.prompts(tensors, words)
        features = doors.images(tensors)
        classes, labels, offsets = count // sets, tensors["labels"], tensors.get("offsets")
        if labels.shape != features.shape[:1] or not ((labels >= 0) & (labels < classes)).all():
            raise WireError(f"labels should be ({len(features)},) numbers from 0 to {classes - 1}")
        if offsets is not None and offsets.shape != (len(features), classes):
            raise WireError(f"offsets should be of shape ({len(features)}, {classes}), got {tuple(offsets.shape)}")
        rest = labels.to(box.device), None if offsets is None else offsets.to(box.device)
        question = Question(contexts, lambda rows: box.losses(doors.text(rows, words), features, *rest))
        return Tensors({"losses": await doors.answer(caller, question, digest, sets, class_prompts=count, loss_queries=sets)})

    @app.post(
        "/v1/predictions",
        response_class=Tensors,
        responses=ERRORS,
        openapi_extra=_tensors_in("contexts, or texts; images (B, E)"),
    )
    async def predictions(caller: Asks, request: Request) -> Response:
        """The predicted class (B,) of each image by one prompt set, and its probability (B,).

        Given by every server that takes prompts. One loss query and C class prompts.
        """
        tensors, words, digest = await doors.message(request, WordsOfPrompts, contexts="?NMD NCMD", images="BE")
        contexts, sets, count = doors.prompts(tensors, words)
        features = doors.images(tensors)
        if sets != 1:
            raise WireError(f"expected one prompt set, got {sets}")

        def ask(rows):
            best = box.logits(doors.text(rows, words), features)[0].double().softmax(dim=-1).max(dim=-1)
            return torch.stack([best.values.float(), best.indices.float()])

        answer = await doors.answer(
            caller, Question(contexts, ask), digest, 2 * len(features), class_prompts=count, loss_queries=1
        )
        return Tensors({"probabilities": answer[0], "labels": answer[1].long()})

    @app.post("/v1/embeddings", responses=ERRORS)
    async def embeddings(caller: Asks, asked: Embeddings) -> dict:
        """Unit-norm features of texts and of encoded images, for clients without preprocessing of their own."""
        doors.require("features")
        inputs = asked.input if isinstance(asked.input, list) else [asked.input]
        inputs = [ImageInput(**{asked.modality: each}) if isinstance(each, str) else each for each in inputs]
        if any((each.image is None) == (each.text is None) for each in inputs):
            raise WireError("each input should be a text or an image")
        rows = [each.text if each.image is None else await asyncio.to_thread(decoded_image, each.image) for each in inputs]
        photos = [row for row in rows if isinstance(row, Image.Image)]
        sentences = [row for row in rows if isinstance(row, str)]
        for needed in (["pixels"] if photos else []) + (["text"] if sentences else []):
            doors.require(needed)

        def ask(_):
            parts = iter(box.encode_images(torch.stack([box.preprocess(photo) for photo in photos])) if photos else ())
            words = iter(box.encode_texts(sentences) if sentences else ())
            return torch.stack([next(words) if isinstance(row, str) else next(parts) for row in rows])

        cost = {"images": len(photos), "class_prompts": len(sentences)}
        digest = digest_of(asked.model_dump_json().encode())
        features = await doors.answer(caller, Question(None, ask), digest, len(rows) * box.embed_dim, **cost)
        told = [written(row, asked.encoding_format) for row in features.cpu()]
        data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(told)]
        return {"object": "list", "model": box.name, "data": data, "usage": {"prompt_tokens": 0, "total_tokens": 0}}

    return app


class Tensors(Response):
    """An answer in safetensors."""

    media_type = MEDIA_TYPE

    def render(self, content: dict[str, torch.Tensor]) -> bytes:
        return pack(content)


REASONS = {
    401: "missing or unknown key", 402: "over budget", 403: "not granted", 408: "too slow", 412: "another model",
    413: "too large", 415: "another media type", 422: "not as described", 500: "the model failed; not charged",
    503: "busy: see Retry-After",
}  # fmt: skip
ERRORS = {status: {"description": reason} for status, reason in REASONS.items()}


def _tensors_in(description: str) -> dict:
    """The OpenAPI description of a request in safetensors."""
    words = "the header's metadata may have `words`, JSON: class_names and position, or texts, or normalize"
    schema = {"type": "string", "format": "binary", "description": f"{description}; {words}"}
    return {"requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": schema}}}}
