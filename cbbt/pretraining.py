"""Pre-training code shared by the kit's two models: token ids, text encoding, optimiser and schedule, files.

`mini_clip` trains both towers on drawn pictures, `photo_clip` a text tower towards a
classifier. A configuration here is a dataclass with lr, weight_decay, warmup and steps.
"""

from __future__ import annotations

import json
import math
import os
import platform
from dataclasses import asdict
from pathlib import Path

import lazy_loader
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

open_clip = lazy_loader.load("open_clip")


def padded_ids(tokenizer, lines: list[list[int]]) -> torch.Tensor:
    """LongTensor (n, positions): start, the ids of a line, end, then zeros; each line must fit."""
    ids = torch.zeros(len(lines), tokenizer.context_length, dtype=torch.long)
    for row, line in zip(ids, lines):
        row[: len(line) + 2] = torch.tensor([tokenizer.sot_token_id, *line, tokenizer.eot_token_id])
    return ids


def read_texts(tokenizer, texts: str | list[str], reader: str) -> torch.Tensor:
    """`padded_ids` of texts. Raises ValueError for one with more tokens than `reader`, named in the error, has positions."""
    texts = [texts] if isinstance(texts, str) else list(texts)
    lines, most = [tokenizer.encode(text) for text in texts], tokenizer.context_length - 2
    for text, line in zip(texts, lines):
        if len(line) > most:
            raise ValueError(f"{text!r} is {len(line)} tokens, {reader} reads at most {most}")
    return padded_ids(tokenizer, lines)


def learning_rate(config, step: int) -> float:
    """The rate of step 0 … steps - 1: linear warm-up, then a cosine down to zero."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimiser(parameters, config) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    parameters = list(parameters)
    matrices, others = [p for p in parameters if p.ndim >= 2], [p for p in parameters if p.ndim < 2]
    groups = [dict(params=matrices, weight_decay=config.weight_decay), dict(params=others, weight_decay=0.0)]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))


def encode_text(model: open_clip.CLIP, ids: torch.Tensor) -> torch.Tensor:
    """Text features (n, E) of ids (n, length), read only up to the last end-of-text token.

    The tower is causal and pools at that token, so this equals open_clip's
    `encode_text`; captions are short, and most positions would be padding.
    """
    ends = ids.argmax(dim=1)
    length = int(ends.max()) + 1
    x = model.token_embedding(ids[:, :length]) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return x[torch.arange(len(ids)), ends] @ model.text_projection


def write_tensors(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished, metadata)
    os.replace(unfinished, path)


def export_tensors(tensors: dict[str, torch.Tensor], config, path: str | Path, **metadata: str) -> None:
    """Write weights in half precision, with the configuration and the versions that made them."""
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    versions = {
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    write_tensors(halves, Path(path), {"config": json.dumps(asdict(config)), "versions": json.dumps(versions)} | metadata)


def save_checkpoint(path: Path, config, state: dict[str, torch.Tensor], optimiser, history: list[list[float]]) -> None:
    """Save the trained tensors `state` (names as in the model), the optimiser's, and the history of the steps."""
    tensors = {f"model.{name}": tensor for name, tensor in state.items()}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": tensor for name, tensor in moments.items()}
    tensors["history"] = torch.tensor(history, dtype=torch.float64)
    write_tensors(tensors, path, {"config": json.dumps(asdict(config))})


def resume(path: Path, config, model, optimiser) -> list[list[float]]:
    """Restore model and optimiser from a checkpoint; returns the history of the steps done.

    Raises ValueError for a checkpoint with other parameters.
    """
    with safe_open(path, "pt") as file:
        stored = json.loads(file.metadata()["config"])
    if stored != asdict(config):
        raise ValueError(f"{path} belongs to another run ({stored}): use another folder or remove the file")
    tensors = load_file(path)
    kept = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    model.load_state_dict(kept, strict=False)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name in (name for name in tensors if name.startswith("optimiser.")):
        _, index, entry = name.split(".")
        state.setdefault(int(index), {})[entry] = tensors[name]
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return tensors["history"].tolist()
