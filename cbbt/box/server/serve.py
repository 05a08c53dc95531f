"""The server process: a box, its keys and ledger, a port."""

from __future__ import annotations

import ipaddress
import socket
import sqlite3
from pathlib import Path

import uvicorn

from cbbt.box.access import granted
from cbbt.box.blackbox import load_black_box
from cbbt.box.server.accounts import ServerLedger, read_keys
from cbbt.box.server.app import make_app
from cbbt.box.server.doors import Limits

CONNECTIONS = 512  # open at once; beyond, 503


def serve(
    backbone: str = "mini",
    pretrained: str | None = "default",
    *,
    device: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    grants: list[str] = ("texts", "images", "image-tokens", "embeddings", "features", "logits", "losses"),
    keys: str | Path | None = None,
    ledger: str | Path = "ledger.sqlite",
    limits: Limits | None = None,
) -> None:
    """Serve a box until the process is ended; prints the address to standard output once it listens.

    Args:
        backbone, pretrained, device: as in `cbbt.load_black_box`; one process serves one device.
        port: 0 for a free one. grants: what is answered (`cbbt.box.access.GRANTS`).
        keys: file of keys and budgets (`cbbt.box.server.accounts`); without it every caller is
            served, which only a loopback address allows. ledger: SQLite file of the counts.

    Raises ValueError for an unknown grant, an invalid key file or ledger, or a host that other machines can reach
    without keys; OSError for a port that is taken; and what `load_black_box` raises.
    """
    access = granted(list(grants))
    accounts = read_keys(keys) if keys else {}
    if not accounts and not _is_loopback(host):
        raise ValueError(f"host {host} can be reached from other machines: give a key file, or serve 127.0.0.1")
    try:
        counts = ServerLedger(Path(ledger).expanduser())
    except sqlite3.Error as error:
        raise ValueError(f"the ledger {ledger} cannot be opened: {error}") from error
    limits = limits or Limits()
    listener = listen(host, port)
    box = load_black_box(backbone, pretrained, device=device)
    app = make_app(box, access, accounts, counts, limits)
    config = uvicorn.Config(
        app, log_level="warning", limit_concurrency=CONNECTIONS, timeout_keep_alive=75, server_header=False, lifespan="off"
    )
    shown = f"[{host}]" if ":" in host else host
    print(
        f"serving {box.name} at http://{shown}:{listener.getsockname()[1]} ({', '.join(sorted(access & box.access))})", flush=True
    )
    uvicorn.Server(config).run(sockets=[listener])
    counts.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0: a free one. Raises OSError for one that is taken."""
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    # Connections inherit it. Otherwise an answer's body waits 40 ms until the client has acknowledged the headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
