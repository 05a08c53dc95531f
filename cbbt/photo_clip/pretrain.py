"""Training of the text tower against the image tower's classifier (locked-image tuning, Zhai et al., CVPR 2022).

The image tower is frozen, and the classes' rows in its classifier replace photographs: a
caption's feature should point to the row of its class, or to the mean of the rows of the
classes that it covers. No photograph is needed. All randomness is a function of
(seed, step), so a run that was killed and resumed ends with the same weights.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from torch.nn import functional as F
from tqdm.auto import trange

from cbbt.pretraining import build_optimiser, encode_text, export_tensors, learning_rate, padded_ids, resume, save_checkpoint

from .captions import all_texts, draw_pair
from .image_tower import joint_space
from .lexicon import anchors
from .model import CONTEXT_LENGTH, SINGLE, TRUNK, PhotoTokenizer, build_photo_clip, load_image_tower

PARTS = 3  # a batch is encoded in parts of similar length


@dataclass(frozen=True)
class PretrainConfig:
    """Parameters of one training; equal parameters on one machine give equal weights."""

    steps: int = 2000
    batch: int = 192  # captions per step
    lr: float = 1e-3  # peak of the cosine schedule
    weight_decay: float = 0.1  # on matrices only
    warmup: int = 60  # steps of linear warm-up
    scale: float = 25.0  # of the cosines, in training and as the model's logit scale
    seed: int = 0
    threads: int = 1  # sums are split over threads, so their number affects the result

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.threads) < 1 or min(self.warmup, self.seed) < 0 or min(self.lr, self.scale) <= 0:
            raise ValueError(f"steps, batch, threads, lr and scale must be positive, warmup and seed not negative: {self}")


def vocabulary() -> list[int]:
    """CLIP's ids, ascending, of tokens that occur at least twice in the captions' texts, of single bytes, start and end."""
    bpe = open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)
    counts = Counter(token for text in all_texts() for token in bpe.encode(text))
    met = {token for token, count in counts.items() if count > 1}
    return sorted(met | set(range(SINGLE)) | {bpe.sot_token_id, bpe.eot_token_id})


def targets() -> torch.Tensor:
    """The target of each anchor's captions, unit norm (anchors, 512): the mean of its classes' targets."""
    places = joint_space()[1]
    return F.normalize(torch.stack([places[list(anchor.classes)].mean(dim=0) for anchor in anchors()]), dim=-1)


def _draw_batch(config: PretrainConfig, step: int, tokenizer: PhotoTokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (batch, 32), the shortest first, and anchors (batch,) of one step; a function of (seed, step) alone."""
    draw = random.Random(f"{config.seed} {step}")
    chosen, captions = zip(*(draw_pair(draw) for _ in range(config.batch)))
    lines = [tokenizer.encode(caption)[: CONTEXT_LENGTH - 2] for caption in captions]
    order = torch.tensor([len(line) for line in lines]).argsort(stable=True)
    return padded_ids(tokenizer, lines)[order], torch.tensor(chosen)[order]


def _train_step(config, step: int, model, optimiser, tokenizer, places: torch.Tensor) -> list[float]:
    """One update; returns [loss, share of captions nearest to their own anchor, mean cosine with it]."""
    ids, own = _draw_batch(config, step, tokenizer)
    texts = torch.cat([encode_text(model, part) for part in ids.split(-(-config.batch // PARTS))])
    cosines = F.normalize(texts, dim=-1) @ places.T
    right = cosines.gather(1, own[:, None]).mean()
    loss = F.cross_entropy(config.scale * cosines, own) + 1 - right
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 1.0)
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(config, step)
    optimiser.step()
    return [loss.item(), (cosines.argmax(dim=1) == own).float().mean().item(), right.item()]


def pretrain(
    config: PretrainConfig, folder: Path, progress: bool = True, save_every: int = 200, stop_after: int | None = None
) -> tuple[open_clip.CLIP, PhotoTokenizer, list[list[float]]]:
    """Train the text tower, or resume the run whose checkpoint is in `folder`.

    Returns the whole model in eval mode, its tokenizer and, per step, [loss, share of captions nearest to
    their own anchor, mean cosine with it]. A checkpoint is written every `save_every` steps and at the
    end; `stop_after` ends the run early at that step, as if it had been killed after a checkpoint.
    Raises ValueError for a checkpoint with other parameters, and what `image_tower` raises.
    """
    torch.set_num_threads(config.threads)
    tokenizer = PhotoTokenizer(vocabulary())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_photo_clip(tokenizer.vocab_size)
    load_image_tower(model)
    model.visual.requires_grad_(False)
    model.visual.head.proj.weight.copy_(joint_space()[0])
    model.logit_scale.requires_grad_(False).fill_(math.log(config.scale))
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimiser = build_optimiser(trained.values(), config)
    checkpoint = Path(folder) / "checkpoint.safetensors"
    history = resume(checkpoint, config, model, optimiser) if checkpoint.exists() else []
    last, places = min(config.steps, stop_after or config.steps), targets()
    model.train()
    model.visual.eval()
    done = len(history)
    steps = trange(done, last, desc="training the text tower", initial=done, total=last, disable=not progress, mininterval=2)
    for step in steps:
        history.append(_train_step(config, step, model, optimiser, tokenizer, places))
        steps.set_postfix(loss=f"{history[-1][0]:.3f}", found=f"{history[-1][1]:.2f}", refresh=False)
        if len(history) % save_every == 0 or len(history) == last:
            save_checkpoint(checkpoint, config, {name: p.detach() for name, p in trained.items()}, optimiser, history)
    return model.eval().requires_grad_(False), tokenizer, history


def export(model: open_clip.CLIP, tokenizer: PhotoTokenizer, config: PretrainConfig, path: Path) -> None:
    """Write everything except the trunk in half precision as safetensors, with vocabulary, parameters and versions."""
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(TRUNK)}
    export_tensors(tensors | {"vocabulary": torch.tensor(tokenizer.vocabulary, dtype=torch.int32)}, config, path)
