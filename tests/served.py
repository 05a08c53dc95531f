"""Boxes served on loopback, within the tests' process or in one of their own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import uvicorn

from cbbt.box.access import granted
from cbbt.box.address import GRANTS
from cbbt.box.server.accounts import ServerLedger, digest_of
from cbbt.box.server.app import make_app
from cbbt.box.server.doors import Limits


@contextlib.contextmanager
def serving(box, *, grants=tuple(GRANTS), accounts=None, ledger=":memory:", port=0, **limits):
    """The address of `box`, served by a thread; its ledger is `.ledger` of what is yielded beside it."""
    counts = ledger if isinstance(ledger, ServerLedger) else ServerLedger(ledger)
    accounts = {digest_of(key.encode()): account for key, account in (accounts or {}).items()}
    app = make_app(box, granted(list(grants)), accounts, counts, Limits(**limits))
    listener = socket.create_server(("127.0.0.1", port))
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


class ServerProcess:
    """`cbbt serve` in a process of its own, which can be killed and started again on the same port and ledger."""

    def __init__(self, folder: Path, backbone: str = "mini", **options):
        self.port, self.ledger, self.process = free_port(), folder / "ledger.sqlite", None
        self.address = f"http://127.0.0.1:{self.port}"
        told = {"backbone": backbone, "port": self.port, "ledger": self.ledger} | options
        self.call = [f"--{name}={value}" for name, value in told.items()]

    def start(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        call = [sys.executable, "-m", "cbbt", "serve", *self.call]
        self.process = subprocess.Popen(call, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout.readline().startswith("serving"), "the server did not start"

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.kill()
