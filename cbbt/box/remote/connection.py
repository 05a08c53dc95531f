"""Questions over HTTP: asked again while a server is away, and told apart from each other by a name.

A question's name (`Idempotency-Key`) follows from the ledger it is counted in, from what was
counted before it, and from its content. Whoever asks it again, in the same process or in one that
resumes a killed run, asks under the same name, and is charged once.
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

PATIENCE = 600.0  # seconds for which a server may be away
LONGEST_PAUSE = 5.0  # seconds between two attempts, unless the server asks for more
TIMEOUT = httpx.Timeout(60.0, read=600.0, connect=10.0)  # large questions take minutes
TRANSIENT = (408, 425, 429, 502, 503, 504)


class BoxUnavailable(ConnectionError):
    """A server that could not be reached for as long as one waits for it, or whose model failed."""


class BoxChanged(RuntimeError):
    """The server serves another model than the one that was begun with."""


class _Away(Exception):
    """Ask again. after: seconds that the server asks to wait, or None."""

    def __init__(self, reason: str, after: float | None = None):
        super().__init__(reason)
        self.after = after


class Connection:
    """A server at `address`, asked with `key` (empty: none).

    patience: seconds for which it is asked again while it is away. While it is, a bar shows the waiting.
    traffic: requests made, repeated ones included, and bytes of the bodies sent and received.
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
        """The response to `attempt`, made again while the server is away.

        Raises `BoxUnavailable`, or what the server's refusal means: PermissionError for the key (401),
        `BudgetExceeded` (402), `ServiceRefused` (403), `BoxChanged` (412), ValueError for anything else. What the model
        failed on (500) it would fail on again: `BoxUnavailable` at once.
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
    """The name of a question: see the module."""
    digest = hashlib.sha256(f"{ledger.name} {sorted(ledger.counts.items())} {path} ".encode())
    digest.update(content)
    return digest.hexdigest()[:32]


_backoff = tenacity.wait_exponential_jitter(initial=0.1, max=LONGEST_PAUSE, jitter=0.1)


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds until the next attempt: what the server asks for, or twice as long each time."""
    after = state.outcome.exception().after
    return _backoff(state) if after is None else after


class _Waiting:
    """A bar that appears when a question must be asked again, and shows for how long it has been."""

    def __init__(self, address: str):
        self.address, self.bar, self.begun = address, None, time.monotonic()

    def __enter__(self) -> _Waiting:
        return self

    def show(self, state: tenacity.RetryCallState) -> None:
        waited = time.monotonic() - self.begun
        if self.bar is None and waited < 1:
            return  # a pause that nobody notices
        if self.bar is None:
            self.bar = tqdm(desc=f"waiting for {self.address}", bar_format="{desc}: {n:.0f} s ({postfix})", leave=False)
        self.bar.n = waited
        self.bar.set_postfix_str(str(state.outcome.exception())[:80])

    def __exit__(self, *error) -> None:
        if self.bar is not None:
            self.bar.close()


def _detail(response: httpx.Response) -> str:
    """What a server says of an error, in one line."""
    try:
        told = response.json()
        told = told.get("detail") or told.get("error") or told
        return str(told.get("message") if isinstance(told, dict) and "message" in told else told)[:500]
    except (ValueError, AttributeError):
        return f"HTTP {response.status_code} {response.reason_phrase}"


def _seconds(value: str | None) -> float | None:
    """`Retry-After` in seconds, at most two minutes; None for none."""
    return min(float(value), 120.0) if value and value.isdecimal() else None
