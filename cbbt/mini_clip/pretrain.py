"""Contrastive pre-training of the embedded model on its procedural world (CLIP, Radford et al. 2021).

`pretrain` draws a pool of image-caption pairs and minimises the symmetric InfoNCE
loss. All randomness is a function of (seed, step), so a run that was killed and
resumes from its checkpoint gives the same weights as one that was not.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from torch.nn import functional as F
from tqdm.auto import trange

from cbbt.pretraining import build_optimiser, encode_text, export_tensors, learning_rate, resume, save_checkpoint

from .model import PREPROCESS, MiniTokenizer, build_mini_clip, vocabulary
from .world import draw_pool


@dataclass(frozen=True)
class PretrainConfig:
    """Parameters of one pre-training run; equal parameters on one machine give equal weights."""

    pool: int = 45_000  # image-caption pairs drawn once and then reused
    steps: int = 1500
    batch: int = 256
    lr: float = 2e-3  # peak of the cosine schedule
    weight_decay: float = 0.1  # on matrices only
    warmup: int = 60  # steps of linear warm-up
    shift: int = 2  # largest shift of a batch's images, in pixels
    seed: int = 0
    threads: int = 2  # sums are split over threads, so their number affects the result

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= self.pool:
            raise ValueError(f"a batch has 1 to pool = {self.pool} pairs, got batch = {self.batch}")
        if min(self.steps, self.threads) < 1 or min(self.warmup, self.shift, self.seed) < 0 or self.lr <= 0:
            raise ValueError(f"steps, threads and lr must be positive, warmup, shift and seed not negative: {self}")


def pixel_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 images (n, 32, 32, 3) as the model reads them: float (n, 3, 32, 32), channels last."""
    mean, std = PREPROCESS["mean"][0], PREPROCESS["std"][0]
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std


def _batch(config: PretrainConfig, step: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Rows of the pool and the image shift of one step; a function of (seed, step) alone."""
    epoch, position = divmod(step, config.pool // config.batch)
    order = np.random.default_rng((config.seed, 1, epoch)).permutation(config.pool)
    down, right = np.random.default_rng((config.seed, 2, step)).integers(-config.shift, config.shift + 1, 2)
    return order[position * config.batch : (position + 1) * config.batch], (int(down), int(right))


def _shifted(pixels: torch.Tensor, shift: tuple[int, int], most: int) -> torch.Tensor:
    (down, right), side = shift, pixels.shape[-1]
    padded = F.pad(pixels, (most,) * 4, mode="replicate")
    return padded[..., most + down : most + down + side, most + right : most + right + side]


def _loss(model: open_clip.CLIP, pixels: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Symmetric InfoNCE of one batch, and the share of images that rank their own caption first."""
    images = F.normalize(model.encode_image(pixels), dim=-1)
    texts = F.normalize(encode_text(model, ids), dim=-1)
    logits = model.logit_scale.exp() * images @ texts.T
    target = torch.arange(len(logits))
    found = (logits.argmax(dim=1) == target).float().mean().item()
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2, found


def _train_step(config, step: int, model, optimiser, images: np.ndarray, ids: torch.Tensor) -> list[float]:
    """One update of the model; returns [loss, share ranked first, logit scale]."""
    rows, shift = _batch(config, step)
    pixels = _shifted(pixel_tensor(images[rows]), shift, config.shift)
    loss, found = _loss(model, pixels.contiguous(memory_format=torch.channels_last), ids[rows])
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(config, step)
    optimiser.step()
    model.logit_scale.data.clamp_(0, math.log(100))
    return [loss.item(), found, model.logit_scale.exp().item()]


def pretrain(
    config: PretrainConfig, folder: Path, progress: bool = True, save_every: int = 200, stop_after: int | None = None
) -> tuple[open_clip.CLIP, list[list[float]]]:
    """Pre-train, or resume the run whose checkpoint is in `folder`.

    Returns the model in eval mode and, per step, [loss, share of images that rank
    their own caption first in the batch, logit scale]. A checkpoint is written
    every `save_every` steps and at the end; `stop_after` ends the run early at that
    step, as if it had been killed after a checkpoint. Raises ValueError for a
    checkpoint with other parameters.
    """
    torch.set_num_threads(config.threads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_mini_clip().to(memory_format=torch.channels_last)
    optimiser = build_optimiser(model.parameters(), config)
    checkpoint = Path(folder) / "checkpoint.safetensors"
    history = resume(checkpoint, config, model, optimiser) if checkpoint.exists() else []
    last = min(config.steps, stop_after or config.steps)
    if len(history) >= last:
        return model.eval(), history
    images, captions = draw_pool(config.seed, config.pool, config.threads, progress)
    ids = MiniTokenizer()(captions)
    model.train()
    done = len(history)
    steps = trange(done, last, desc="pre-training", initial=done, total=last, disable=not progress, mininterval=2)
    for step in steps:
        history.append(_train_step(config, step, model, optimiser, images, ids))
        steps.set_postfix(loss=f"{history[-1][0]:.3f}", found=f"{history[-1][1]:.2f}", refresh=False)
        if len(history) % save_every == 0 or len(history) == last:
            save_checkpoint(checkpoint, config, model.state_dict(), optimiser, history)
    return model.eval(), history


@torch.no_grad()
def zero_shot_accuracy(model: open_clip.CLIP, template: str, class_names, items) -> float:
    """Percentage of `items` (with `pixels`, (32, 32, 3), and `label`) classified correctly with the filled template."""
    texts = encode_text(model, MiniTokenizer()([template.replace("{}", name) for name in class_names]))
    images = model.encode_image(pixel_tensor(np.stack([item.pixels for item in items])))
    scores = F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    return 100 * (scores.argmax(dim=1) == torch.tensor([item.label for item in items])).float().mean().item()


def export(model: open_clip.CLIP, config: PretrainConfig, path: Path) -> None:
    """Write the weights in half precision as safetensors, with parameters, vocabulary and versions."""
    export_tensors(model.state_dict(), config, path, vocabulary=json.dumps(vocabulary()))
