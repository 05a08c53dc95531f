"""The wire format between a served box and its clients: safetensors, never pickle.

A message is one safetensors file: named tensors, and in its header JSON fields (`words`).
Pixels have eight bits a channel and shrink to two fifths under zstandard's fastest level;
contexts and features shrink by a tenth at most, and are sent uncompressed (measured by
`benchmarks/remote.py`).
"""

from __future__ import annotations

import json

import safetensors
import torch
import zstandard
from safetensors.torch import load, save

MEDIA_TYPE = "application/vnd.safetensors"
FINGERPRINT = "X-Box-Fingerprint"  # response header: which model answered
# Attributes of a box that a server reports unchanged.
FACTS = ("name", "context_dim", "embed_dim", "image_size", "image_token_dim", "preprocess_config", "logit_scale")
KINDS = {"F32": torch.float32, "I64": torch.int64}  # dtypes that a message may hold


class WireError(ValueError):
    """The data received is not a valid message."""


def pack(tensors: dict[str, torch.Tensor], words: dict | None = None) -> bytes:
    """A message of tensors (float32 or int64) and of `words`, which JSON can hold."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(plain, {"words": json.dumps(words or {}, sort_keys=True)})


def unpack(body: bytes) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and words of a message. Raises `WireError` for anything else."""
    try:
        # safetensors checks the header against the data before it allocates anything of the size that the header claims.
        names = load(body)
        header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
        words = json.loads(header.get("__metadata__", {}).get("words", "{}"))
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RecursionError, OverflowError, RuntimeError) as error:
        raise WireError("expected a safetensors file, whose header may hold 'words' in JSON") from error
    if not isinstance(words, dict):
        raise WireError("expected the words of the header to be a JSON object")
    for name, tensor in names.items():
        if tensor.dtype not in KINDS.values():
            raise WireError(f"tensor {name!r} should be of {' or '.join(KINDS)}, got {header[name]['dtype']}")
    return names, words


def compressed(body: bytes) -> bytes:
    """`body` compressed at zstandard's fastest level; the header holds its original length."""
    return zstandard.ZstdCompressor(level=1).compress(body)


def expanded(body: bytes, limit: int) -> bytes:
    """Undo `compressed`; `WireError` for other data, or if its header says more than `limit` bytes."""
    try:
        length = zstandard.frame_content_size(body)
        if not 0 <= length <= limit:
            raise WireError(f"expected zstandard with a length of at most {limit} bytes in its header")
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=limit)
    except zstandard.ZstdError as error:
        raise WireError(f"expected a body in zstandard, as its Content-Encoding says: {error}") from error
