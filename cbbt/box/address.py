"""Addresses of boxes that are served elsewhere, and what they may be told to grant.

http://host:8000, https://…           a box of `cbbt serve`
embeddings+http://host:7997/v1        a service of features in the manner of OpenAI's /v1/embeddings
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

FEATURES = "embeddings+"  # in front of the address of a service of features
# What a server may grant (`cbbt serve --grant`), in the words of the table.
GRANTS = {
    "texts": "text", "images": "pixels", "image-tokens": "image tokens", "embeddings": "token embeddings",
    "features": "features", "logits": "logits", "losses": "losses",
}  # fmt: skip
KEY = "CBBT_KEY"  # environment variable that holds the key where none is given


def is_address(backbone: str | None) -> bool:
    """Whether a backbone is one that is asked over the network."""
    return re.match(rf"({re.escape(FEATURES)})?https?:", str(backbone)) is not None


def check_address(backbone: str) -> str:
    """`backbone` without a slash at its end. Raises ValueError where it has no host, or a key: addresses stand in records."""
    parts = urlsplit(backbone.removeprefix(FEATURES))
    try:
        fits = parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        fits = False
    if not fits or parts.query or parts.fragment:
        raise ValueError(f"backbone {backbone!r} is no address such as http://host:8000")
    if parts.username or parts.password:
        raise ValueError(f"backbone names {parts.hostname} with a password: addresses stand in records, give key=… or set {KEY}")
    return backbone.rstrip("/")


def key_for(key: str | None) -> str:
    """The key given, or that of the environment; ValueError for characters that no header may have."""
    key = os.environ.get(KEY, "") if key is None else key
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"the key (key=…, or the environment variable {KEY}) holds characters that no key has")
    return key.strip()
