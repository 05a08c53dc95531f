"""Boxes served on loopback by a thread of the tests' process; `cbbt.box.server.process` has those of their own."""

import contextlib
import socket
import threading
import time

import uvicorn

from cbbt.box.access import granted
from cbbt.box.address import GRANTS
from cbbt.box.server.accounts import ServerLedger, digest_of
from cbbt.box.server.app import make_app
from cbbt.box.server.doors import Limits
from cbbt.box.server.serve import listen


@contextlib.contextmanager
def serving(box, *, grants=tuple(GRANTS), accounts=None, ledger=":memory:", port=0, **limits):
    """The address of `box`, served by a thread; its ledger is `.ledger` of what is yielded beside it."""
    counts = ledger if isinstance(ledger, ServerLedger) else ServerLedger(ledger)
    accounts = {digest_of(key.encode()): account for key, account in (accounts or {}).items()}
    app = make_app(box, granted(list(grants)), accounts, counts, Limits(**limits))
    listener = listen("127.0.0.1", port)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", counts
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
        listener.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
