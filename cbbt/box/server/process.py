"""A server in a child process, for notebooks, tests and benchmarks on one machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path


class ServerProcess:
    """`cbbt serve` on a free port of this machine; use it as a context manager, or call `start` and `kill`.

    Args:
        folder: holds the ledger, `ledger.sqlite`. options: those of `cbbt serve`, such as backbone="photo",
            grant="texts,images", keys=path. A killed server that is started again has the same port and ledger.
        threads: of the model; None for the machine's default.

    Attributes: address (http://127.0.0.1:port), ledger (path), process (None while there is none).
    """

    def __init__(self, folder: str | Path, *, threads: int | None = None, **options):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address, self.ledger, self.process = f"http://127.0.0.1:{port}", Path(folder) / "ledger.sqlite", None
        self.environment = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
        told = options | {"port": port, "ledger": self.ledger}
        self.command = [sys.executable, "-m", "cbbt", "serve", *(f"--{name}={value}" for name, value in told.items())]

    def start(self) -> None:
        """Start the server and wait until it listens. Raises RuntimeError, with its command, if it does not."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True, env=self.environment)
        if not self.process.stdout.readline().startswith("serving"):
            raise RuntimeError(f"the server did not start (exit status {self.process.wait()}): {' '.join(self.command[3:])}")

    def kill(self) -> None:
        """End the server without warning, as a crash would (SIGKILL)."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def __enter__(self) -> ServerProcess:
        self.start()
        return self

    def __exit__(self, *error) -> None:
        self.kill()
