"""Chunk sizes follow from the memory at hand, and change no result."""

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


def test_tf32_is_off_within_and_as_before_after(box):
    from cbbt.box.blackbox import full_precision

    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with pytest.raises(RuntimeError), full_precision():
            assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
            raise RuntimeError
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
