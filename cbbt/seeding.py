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


def batch_rows(seed: int, step: int, n: int, size: int) -> torch.Tensor:
    """Row numbers of the batch of a step: n rows in a new order each epoch, an incomplete batch dropped."""
    size = min(size, n)
    epoch, within = divmod(step, n // size)
    order = torch.randperm(n, generator=generator_for(seed, "order", epoch))
    return order[within * size : (within + 1) * size]
