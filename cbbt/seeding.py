"""One generator per draw, derived from the seed and the purpose of the draw.

No draw depends on an earlier one: the order of batches in epoch 7 is the same
whether epochs 1–6 ran in this process, in a killed one, or not at all. This
makes a resumed run equal to an uninterrupted one.
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
    """Row numbers of the batch of a step, min(size, n) of n rows.

    Batches are cut from a sequence of permutations, each a new draw, without a gap: if n is
    not a multiple of the size, the rest of one permutation begins the next batch, and no row
    is skipped (released codes drop the incomplete batch).
    """
    size = min(size, n)
    first, begin = divmod(step * size, n)
    orders = [torch.randperm(n, generator=generator_for(seed, "order", first))]
    if begin + size > n:
        orders.append(torch.randperm(n, generator=generator_for(seed, "order", first + 1)))
    return torch.cat(orders)[begin : begin + size]
