"""Timing and memory measurement for the benchmarks: seconds of calls that take turns, and peak memory."""

from __future__ import annotations

import resource
import time

import pandas as pd
import torch


def turns(calls: dict, repeats: int, device: torch.device) -> pd.DataFrame:
    """Seconds of each call (columns) in each turn (rows), after a warm-up turn."""
    rows = []
    for _ in range(repeats + 1):
        row = {}
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            row[name] = time.perf_counter() - begun
        rows.append(row)
    return pd.DataFrame(rows[1:])


def clock(calls: dict, repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each call, the calls taking turns."""
    return turns(calls, repeats, device).median().to_dict()


def peak_memory(device) -> float:
    """Largest memory so far, GB: the GPU's, or this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
