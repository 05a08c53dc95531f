"""How much memory a device has, and how much of it one query may take.

Chunk sizes depend on the *installed* memory, not on what happens to be free: they
affect the last bits of a result, and a run that is killed and resumed must use the
same chunks again.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import torch

# The share of the installed memory that the largest intermediate results of one query may
# take: several runs share a machine, which also holds a model and its data.
SHARE = 1 / 16
STATUS, PEAK_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def installed_memory(device: torch.device) -> int:
    """Bytes of the GPU, or of the machine within the limit of this process's control group."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in map(Path, CGROUP_LIMITS):
        text = path.read_text().strip() if path.exists() else ""
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


def chunk_size(device: torch.device, bytes_each: float, most: int | None = None) -> int:
    """How many items of `bytes_each` fit into one query's share: a power of two, 1 … `most`.

    A power of two, so that machines with slightly different memory use the same chunks.
    """
    fitting = max(1, int(SHARE * installed_memory(device) / bytes_each))
    chunk = 1 << (fitting.bit_length() - 1)
    return chunk if most is None else min(chunk, most)


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[dict]:
    """A dict whose "megabytes" is, after the block, its peak memory above what was in use before.

    GPU memory, or this process's as Linux counts it; None on other systems.
    """
    peak: dict = {"megabytes": None}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak["megabytes"] = round((torch.cuda.max_memory_allocated(device) - before) / 1e6, 1)
    elif os.access(PEAK_RESET, os.W_OK):
        _give_back_freed_memory()
        PEAK_RESET.write_text("5")  # resets the high-water mark
        before = _resident("VmRSS")
        yield peak
        peak["megabytes"] = round(max(0, _resident("VmHWM") - before) / 1e6, 1)
    else:
        yield peak


def _give_back_freed_memory() -> None:
    """Return freed memory to the system; otherwise it would hide what the measured block takes."""
    gc.collect(1)  # young objects only: a full collection takes as long as a short fit
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident(entry: str) -> int:
    """Bytes given by an entry of the process's status file."""
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(entry)]
    return int(line.split()[1]) * 1024
