"""What the endpoints of a served box share: caller, limits, cost, and the queue for the model."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Annotated

import torch
from fastapi import Header, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers

from cbbt.box.blackbox import BlackBox
from cbbt.box.ledger import BudgetExceeded
from cbbt.box.server.accounts import ANYONE, Account, AnotherQuestion, ServerLedger, digest_of
from cbbt.box.server.forms import Words, WordsOfPrompts, read_message
from cbbt.box.server.worker import Busy, Question, Worker
from cbbt.box.wire import FINGERPRINT, MEDIA_TYPE, WireError, expanded

log = logging.getLogger("cbbt.server")
PIECE = 1_000_000  # bytes of an answer that are sent at once


@dataclass(frozen=True)
class Limits:
    """megabytes: largest request or answer. waiting: requests in the queue. seconds: for which a caller may be silent while
    it sends or receives. join: most rows of requests joined into one product, 0 for none (`cbbt.box.server.worker`)."""

    megabytes: int = 256
    waiting: int = 64
    seconds: float = 30.0
    join: int = 0

    @property
    def bytes(self) -> int:
        return self.megabytes * 1_000_000


@dataclass(frozen=True)
class Caller:
    """The caller: its account, and the idempotency key, if there is one."""

    account: Account
    question: str | None


class Doors:
    """What the endpoints share: the box, what it grants, the accounts, and the thread that answers."""

    def __init__(self, box: BlackBox, access: frozenset[str], accounts: dict[str, Account], ledger: ServerLedger, limits: Limits):
        self.box, self.access = box, access & box.access
        self.accounts, self.ledger, self.limits = accounts, ledger, limits
        self.worker = Worker(limits.waiting, limits.join)
        self.fingerprint = box.fingerprint()
        self.held = 0  # bytes of requests that are being read or answered

    def caller(
        self,
        authorization: Annotated[str, Header()] = "",
        idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
        if_match: Annotated[str | None, Header()] = None,
    ) -> Caller:
        """The caller, from `Authorization: Bearer <key>`."""
        kind, _, key = authorization.partition(" ")
        account = self.accounts.get(digest_of(key.strip().encode())) if kind.lower() == "bearer" else None
        if account is None and self.accounts:
            raise HTTPException(401, "a key is needed: Authorization: Bearer <key>", {"WWW-Authenticate": "Bearer"})
        if if_match is not None and if_match.strip('"') != self.fingerprint:
            raise HTTPException(412, "this server does not serve the model that the request expects")
        return Caller(account or Account(ANYONE, {}), idempotency_key)

    def hold(self, scope: dict, count: int) -> None:
        """Count `count` more bytes that a request keeps in memory until it is answered; 503 if all requests hold too many."""
        if self.held + count > 4 * self.limits.bytes:
            raise busy()
        self.held += count
        scope["held"] = scope.get("held", 0) + count

    def release(self, scope: dict) -> None:
        self.held -= scope.pop("held", 0)

    async def body(self, request: Request) -> bytes:
        """The request's body, expanded."""
        body, coding = await request.body(), request.headers.get("content-encoding", "identity")
        if coding not in ("identity", "zstd"):
            raise HTTPException(415, "Content-Encoding may be zstd")
        if coding == "zstd":
            body = await asyncio.to_thread(expanded, body, self.limits.bytes)
            self.hold(request.scope, len(body))
        return body

    async def message(self, request: Request, words: type[Words], **shapes: str) -> tuple[dict[str, torch.Tensor], Words, str]:
        """Tensors, words and digest of a request in safetensors; `shapes` as `read_message` takes them."""
        if request.headers.get("content-type", "").split(";")[0] != MEDIA_TYPE:
            raise HTTPException(415, f"Content-Type should be {MEDIA_TYPE}")
        # In a thread, because parsing a large body would hold up other requests.
        tensors, given, digest = await asyncio.to_thread(read_message, await self.body(request), shapes)
        return tensors, words.model_validate(given), digest

    def require(self, *needs: str) -> None:
        if lacking := [need for need in needs if need not in self.access]:
            raise HTTPException(403, f"this server takes or gives no {' and no '.join(lacking)}")

    async def answer(self, caller: Caller, question: Question, digest: str, numbers: int, **cost: int) -> torch.Tensor:
        """Charge the caller and query the model. `numbers`: how many numbers the answer has."""
        if 4 * numbers > self.limits.bytes:
            raise HTTPException(
                413, f"an answer may have {self.limits.bytes} bytes, this one would have {4 * numbers}: send smaller batches"
            )
        try:
            self.worker.reserve()
            charged = self.ledger.charge(caller.account, cost, caller.question, digest)
        except Busy:
            raise busy() from None
        except BudgetExceeded as error:
            raise HTTPException(402, str(error)) from None
        except AnotherQuestion as error:
            raise HTTPException(422, str(error)) from None
        try:
            return await self.worker.ask(caller.account.name, question)
        except Exception as error:
            if charged:
                self.ledger.take_back(caller.account, cost, caller.question)
            if isinstance(error, ValueError):  # what the box refuses: shapes, names that are too long
                raise HTTPException(422, str(error)) from None
            log.exception("a request failed")
            raise HTTPException(500, "the model failed on this request; it was not charged") from None

    def prompts(self, tensors: dict, words: WordsOfPrompts) -> tuple[torch.Tensor | None, int, int]:
        """Contexts (or none), and the number of prompt sets and of class prompts in a request."""
        if (words.texts is None) != ("contexts" in tensors):
            raise WireError("contexts go with class_names, and texts with neither")
        self.require("text" if words.texts else "token embeddings")
        if words.texts:
            return None, 1, len(words.texts)
        contexts = tensors["contexts"]
        if contexts.ndim == 4 and contexts.shape[1] != len(words.class_names):
            raise WireError(f"contexts have {contexts.shape[1]} classes, class_names {len(words.class_names)}")
        return contexts, len(contexts), len(contexts) * len(words.class_names)

    def text(self, contexts: torch.Tensor | None, words: WordsOfPrompts) -> torch.Tensor:
        """Features (N, C, E) of prompts, or (1, C, E) of sentences; in the worker's thread."""
        if words.texts:
            return self.box.encode_texts(words.texts)[None]
        return self.box.encode_prompts(contexts, words.class_names, words.position)

    def images(self, tensors: dict) -> torch.Tensor:
        """Image features (B, E) in a request for losses or logits, on the box's device."""
        if tensors["images"].shape[1] != self.box.embed_dim:
            raise WireError(f"images should be features (B, {self.box.embed_dim}), got {tuple(tensors['images'].shape)}")
        return tensors["images"].to(self.box.device)


class Bounds:
    """Limits every request in size and in seconds of silence, and marks every answer with the model's fingerprint."""

    def __init__(self, app, doors: Doors):
        self.app, self.doors, self.limits = app, doors, doors.limits

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        size, seconds, headers = 0, self.limits.seconds, Headers(scope=scope)
        length = headers.get("content-length", str(self.limits.bytes) if "transfer-encoding" in headers else "0")
        too_large = HTTPException(413, f"a request may have {self.limits.bytes} bytes")

        async def bounded_receive():
            nonlocal size
            try:
                message = await asyncio.wait_for(receive(), seconds)
            except TimeoutError:
                raise HTTPException(408, f"nothing received for {seconds:g} seconds") from None
            size += len(message.get("body", b""))
            if size > self.limits.bytes:
                raise too_large
            return message

        async def bounded_send(message):
            if message["type"] == "http.response.start":
                if message["status"] < 400 and scope["path"].startswith("/v1/"):
                    message["headers"] = [*message["headers"], (FINGERPRINT.lower().encode(), self.doors.fingerprint.encode())]
                return await send(message)
            # In pieces with a timeout for each: a slow client is served, one that reads nothing is dropped.
            body = memoryview(message.get("body", b""))
            for start in range(0, max(1, len(body)), PIECE):
                more = message.get("more_body", False) or start + PIECE < len(body)
                piece = bytes(body[start : start + PIECE])
                await asyncio.wait_for(send({"type": message["type"], "body": piece, "more_body": more}), seconds)

        try:
            if not length.isdecimal() or int(length) > self.limits.bytes:
                raise too_large
            self.doors.hold(scope, int(length))
            await self.app(scope, bounded_receive, bounded_send)
        except HTTPException as error:  # raised outside the application, which would have answered it
            await JSONResponse({"detail": error.detail}, error.status_code, error.headers)(scope, receive, send)
        finally:
            self.doors.release(scope)


def busy() -> HTTPException:
    """503, with the time after which to try again."""
    return HTTPException(503, "the queue is full", {"Retry-After": "1"})
