"""Requests over HTTP: retried while a server is unavailable, each identified by an idempotency key.

The key (`Idempotency-Key`) is derived from the request's ledger, from what that had counted
before, and from the request's content. A request that is repeated, in the same process or in
one that resumes a killed run, has the same key and is charged once.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import httpx
import tenacity
from tqdm.auto import tqdm

from cbbt.box.access import ServiceRefused
from cbbt.box.ledger import BudgetExceeded, Ledger

PATIENCE = 600.0  # seconds for which a server may be unavailable
LONGEST_PAUSE = 5.0  # seconds between two attempts, unless the server sets Retry-After
TIMEOUT = httpx.Timeout(60.0, read=600.0, connect=10.0)  # large requests take minutes
TRANSIENT = (408, 425, 429, 502, 503, 504)


class BoxUnavailable(ConnectionError):
    """The server could not be reached before the timeout, or its model failed."""


class BoxChanged(RuntimeError):
    """The server no longer serves the model that this box was made for."""


class _Away(Exception):
    """Try again. after: seconds to wait, as the server says, or None."""

    def __init__(self, reason: str, after: float | None = None):
        super().__init__(reason)
        self.after = after


class Connection:
    """Requests to the server at `address` with the API key `key` (empty: none).

    patience: seconds for which requests are retried while it is unavailable; a bar shows the waiting time.
    traffic: number of requests, retries included, and size in bytes of the bodies sent and received.
    """

    def __init__(self, address: str, key: str = "", *, patience: float = PATIENCE):
        self.address, self.patience = address, patience
        self.traffic = {"requests": 0, "bytes_sent": 0, "bytes_received": 0}
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # Redirects are not followed: they would carry the key elsewhere.
        self.client = httpx.Client(base_url=address, headers=headers, timeout=TIMEOUT, follow_redirects=False)

    def get(self, path: str) -> httpx.Response:
        return self._persist(lambda: self.client.get(path))

    def post(self, path: str, content: bytes, headers: dict[str, str]) -> httpx.Response:
        return self._persist(lambda: self.client.post(path, content=content, headers=headers))

    def _persist(self, attempt: Callable[[], httpx.Response]) -> httpx.Response:
        """The response to `attempt`, retried while the server is unavailable.

        Raises `BoxUnavailable`, or the error for the server's status: PermissionError for the key (401),
        `BudgetExceeded` (402), `ServiceRefused` (403), `BoxChanged` (412), ValueError for anything else. A failure of
        the model (500) would repeat itself: `BoxUnavailable` without a retry.
        """
        with _Waiting(self.address) as waiting:
            retrying = tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(_Away),
                wait=_pause,
                stop=tenacity.stop_after_delay(self.patience),
                before_sleep=waiting.show,
                reraise=True,
            )
            try:
                return retrying(self._once, attempt)
            except _Away as error:
                raise BoxUnavailable(f"{self.address} did not answer for {self.patience:g} s: {error}") from error

    def _once(self, attempt: Callable[[], httpx.Response]) -> httpx.Response:
        self.traffic["requests"] += 1
        try:
            response = attempt()
        except httpx.TransportError as error:
            raise _Away(f"{type(error).__name__} {error}".strip()) from error
        self.traffic["bytes_sent"] += len(response.request.content)
        self.traffic["bytes_received"] += len(response.content)
        if response.is_success:
            return response
        said = _detail(response)
        if response.status_code in TRANSIENT:
            raise _Away(f"HTTP {response.status_code} {said}", _seconds(response.headers.get("Retry-After")))
        if response.status_code == 401:
            raise PermissionError(f"{self.address} does not know the key: {said}")
        kinds = {402: BudgetExceeded, 403: ServiceRefused, 412: BoxChanged, 500: BoxUnavailable}
        raise kinds.get(response.status_code, ValueError)(f"{self.address}: {said}")


def name_of(ledger: Ledger, path: str, content: bytes) -> str:
    """The idempotency key of a request; see the module's docstring."""
    digest = hashlib.sha256(f"{ledger.name} {sorted(ledger.counts.items())} {path} ".encode())
    digest.update(content)
    return digest.hexdigest()[:32]


_backoff = tenacity.wait_exponential_jitter(initial=0.1, max=LONGEST_PAUSE, jitter=0.1)


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds until the next attempt: the server's Retry-After, or twice as long each time."""
    after = state.outcome.exception().after
    return _backoff(state) if after is None else after


class _Waiting:
    """A bar that appears when a request is retried, and shows the time waited."""

    def __init__(self, address: str):
        self.address, self.bar, self.begun = address, None, time.monotonic()

    def __enter__(self) -> _Waiting:
        return self

    def show(self, state: tenacity.RetryCallState) -> None:
        waited = time.monotonic() - self.begun
        if self.bar is None and waited < 1:
            return  # a pause too short to notice
        if self.bar is None:
            self.bar = tqdm(desc=f"waiting for {self.address}", bar_format="{desc}: {n:.0f} s ({postfix})", leave=False)
        self.bar.n = waited
        self.bar.set_postfix_str(str(state.outcome.exception())[:80])

    def __exit__(self, *error) -> None:
        if self.bar is not None:
            self.bar.close()


def _detail(response: httpx.Response) -> str:
    """The server's error message, in one line."""
    try:
        told = response.json()
        told = told.get("detail") or told.get("error") or told
        return str(told.get("message") if isinstance(told, dict) and "message" in told else told)[:500]
    except (ValueError, AttributeError):
        return f"HTTP {response.status_code} {response.reason_phrase}"


def _seconds(value: str | None) -> float | None:
    """`Retry-After` in seconds, at most two minutes; None for none."""
    return min(float(value), 120.0) if value and value.isdecimal() else None
