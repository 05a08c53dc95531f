"""Where a model computes, and how precisely."""

from __future__ import annotations

import contextlib

import torch


@contextlib.contextmanager
def full_precision():
    """While open, products keep fp32's 24 bits: TF32 has 11 and bf16 8, and differences of losses drown in them."""
    backends = torch.backends
    with contextlib.ExitStack() as restored:
        if hasattr(backends.cuda.matmul, "fp32_precision"):
            # Once these names have been used, torch refuses to read the older ones, so only these are set.
            gpu, cpu = backends.cudnn, backends.mkldnn
            for kind, device in ((backends.cuda.matmul, gpu), (gpu.conv, gpu), (cpu.matmul, cpu), (cpu.conv, cpu)):
                # An unset value reads as its device's, and is left unset again.
                own = "none" if kind.fp32_precision == device.fp32_precision else kind.fp32_precision
                restored.callback(setattr, kind, "fp32_precision", own)
                kind.fp32_precision = "ieee"
        else:  # before torch 2.9
            restored.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            restored.callback(setattr, backends.cudnn, "allow_tf32", backends.cudnn.allow_tf32)
            torch.set_float32_matmul_precision("highest")
            backends.cudnn.allow_tf32 = False
        yield


def device_of(name: str | torch.device | None) -> torch.device:
    """The device of that name, or ValueError: no other kind was tested, and "mps" has no float64."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name is None or name == "auto":
        return torch.device("cuda" if count else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device={name!r} is not supported, choose from auto, cpu, cuda, cuda:0, …")
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(f"device={name!r} not found, torch sees {count} GPUs: choose from auto, cpu, …")
    return device
