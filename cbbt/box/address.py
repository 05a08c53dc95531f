"""Addresses of remote boxes, and what a server can grant.

http://host:8000, https://…           a box of `cbbt serve`
embeddings+http://host:7997/v1        a feature service with an API like OpenAI's /v1/embeddings
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

FEATURES = "embeddings+"  # prefix of a feature service's address
# What a server may grant (`cbbt serve --grant`), in the terms of `cbbt.box.access`.
GRANTS = {
    "texts": "text", "images": "pixels", "image-tokens": "image tokens", "embeddings": "token embeddings",
    "features": "features", "logits": "logits", "losses": "losses",
}  # fmt: skip
KEY = "CBBT_KEY"  # environment variable with the API key, read if none is given


def is_address(backbone: str | None) -> bool:
    """Whether a backbone is queried over the network."""
    return re.match(rf"({re.escape(FEATURES)})?https?:", str(backbone)) is not None


def check_address(backbone: str) -> str:
    """`backbone` without a trailing slash. Raises ValueError if it has no host, or holds a key: addresses are recorded."""
    parts = urlsplit(backbone.removeprefix(FEATURES))
    try:
        fits = parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        fits = False
    if not fits or parts.query or parts.fragment:
        raise ValueError(f"backbone {backbone!r} is not an address such as http://host:8000")
    if parts.username or parts.password:
        raise ValueError(f"the address of {parts.hostname} holds a password, and addresses are recorded: give key=… or set {KEY}")
    return backbone.rstrip("/")


def key_for(key: str | None) -> str:
    """The key given, or the one in the environment; ValueError for characters that an HTTP header cannot hold."""
    key = os.environ.get(KEY, "") if key is None else key
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"the key (key=…, or the environment variable {KEY}) holds characters that an HTTP header cannot hold")
    return key.strip()
