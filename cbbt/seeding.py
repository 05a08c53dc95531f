"""One generator per draw, derived from the seed and the purpose of the draw.

No draw depends on an earlier one: the order of batches in epoch 7 is the same
whether epochs 1–6 ran in this process, in a killed one, or not at all. That is
what makes a resumed run equal to an undisturbed one.
"""

from __future__ import annotations

import hashlib

import torch


def generator_for(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator that depends on `seed` and `purpose` alone."""
    text = "/".join(map(str, (seed, *purpose)))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(number)
