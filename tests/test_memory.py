"""Chunk sizes depend on the installed memory, and change no result."""

import subprocess
import sys

import pytest
import torch

from cbbt.box import memory

CPU = torch.device("cpu")


def test_the_control_groups_limit_counts(monkeypatch, tmp_path):
    whole = memory.installed_memory(CPU)
    (tmp_path / "limit").write_text("1073741824\n")
    (tmp_path / "none").write_text("max\n")
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (tmp_path / "none", tmp_path / "absent"))
    assert memory.installed_memory(CPU) >= whole > 0
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (tmp_path / "none", tmp_path / "limit"))
    assert memory.installed_memory(CPU) == 2**30


@pytest.mark.parametrize(
    "installed, bytes_each, most, expected",
    [
        (2**34, 2**10, None, 2**20),
        (2**34 + 12345, 2**10, None, 2**20),  # machines that differ by a little chunk alike
        (2**34, 2**10, 8192, 8192),
        (2**20, 2**30, None, 1),  # too little for one: one is tried all the same
    ],
)
def test_chunks_are_powers_of_two(monkeypatch, installed, bytes_each, most, expected):
    monkeypatch.setattr(memory, "installed_memory", lambda device: installed)
    assert memory.chunk_size(CPU, bytes_each, most) == expected


def test_little_memory_changes_no_answer(box, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    contexts = torch.randn(9, 2, 32, generator=generator)
    pixels = torch.randn(6, 3, 16, 16, generator=generator)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])

    def answers():
        images = box.encode_images(pixels)
        text = box.encode_prompts(contexts, ["cat", "dog", "old house"])
        return images, text, box.losses(text, images, labels, torch.ones(6, 3))

    ample = answers()
    monkeypatch.setattr(memory, "installed_memory", lambda device: 1)
    for one, other in zip(ample, answers()):
        assert one.shape == other.shape and torch.allclose(one, other, atol=1e-5)


OLDER = "backends.cuda.matmul.allow_tf32 = True"
LINES = (
    "pass",
    'backends.cuda.matmul.fp32_precision = "tf32"',
    'backends.fp32_precision = "tf32"',
    'backends.fp32_precision = "ieee"',
    'backends.cudnn.conv.fp32_precision = "tf32"',
    'torch.set_float32_matmul_precision("high")',
    'torch.set_float32_matmul_precision("medium")',
    OLDER,  # warns by itself
    'torch.set_float32_matmul_precision("medium"); backends.cuda.matmul = None',  # as before torch 2.9
)
CHILD = """
import os, sys, torch
from torch import backends
from cbbt.box.device import full_precision

def state():
    if not hasattr(backends.cuda.matmul, "fp32_precision"):
        return torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32
    kinds = backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv
    return [kind.fp32_precision for kind in kinds]

def check(line):
    exec(line)
    before = state()
    try:
        with full_precision():
            assert state() in (["ieee"] * 4, ("highest", False)), state()
            raise KeyError
    except KeyError:
        assert state() == before, (before, state())
    if line.startswith("backends.fp32"):  # what was left open still follows
        backends.fp32_precision = "ieee"
        assert backends.cuda.matmul.fp32_precision == "ieee"

for line in sys.argv[1:]:
    print(line, file=sys.stderr, flush=True)
    if hasattr(backends.cuda.matmul, "fp32_precision") or "fp32_precision =" not in line:
        child = os.fork()
        if not child:
            check(line)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, line
"""


def test_products_are_in_full_precision_and_settings_come_back():
    """Each in a process of its own: what the newer names have set, the older ones cannot take back."""
    command = [sys.executable, "-W", "always", "-c", CHILD, *LINES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "TF32" not in done.stderr.split(OLDER)[0], done.stderr
