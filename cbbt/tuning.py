"""The collaborative loop: a prompt by estimated gradients, an adapter by exact ones.

Each step takes one batch of cached image features and updates both sides from the
same current prompts (Guo et al., 2023):

    f', o = adapter(f)                               the user's side
    ĝ     = estimate of ∇_v mean CE(τ f'·t(v) + o)   queries to the box
    v     ← Adam(v, clip(ĝ, 5));  adapter ← optimiser(exact gradient)

The same loop trains the prompt alone, the adapter alone, and, with
`ExactGradient` through the white box, CoOp. Read `tune` first. A run can stop at
any step: every draw has its own generator (`cbbt.seeding`), so a checkpoint is
the parameters, the optimisers' moments and the counts, and nothing else.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from pathlib import Path
from typing import Callable

import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from tqdm.auto import tqdm

from cbbt.directions import remembering
from cbbt.estimators import estimate_gradient
from cbbt.fitting import Classifier, Fitted, Session, Support
from cbbt.seeding import generator_for


class EstimatedGradient:
    """Prompt gradients from loss queries alone (CBBT)."""

    def __init__(self, box, class_names, config):
        self.box, self.class_names, self.config = box, class_names, config

    def __call__(self, context, features, offsets, labels, generator, previous):
        """Gradient like `context`, loss, and text features (C, E) at `context`.

        `previous` is the last step's estimate, or None in the first step.
        """
        config, base = self.config, []

        def loss(contexts):
            text = self.box.encode_prompts(contexts, self.class_names, config.position)
            if not base:
                base.append(text[0])
            return self.box.losses(text, features, labels, offsets)

        estimate = estimate_gradient(
            loss,
            context,
            q=config.q,
            epsilon=config.epsilon,
            directions=remembering(previous) if config.directions == "remembering" else config.directions,
            differences=config.differences,
            factor=config.factor,
            generator=generator,
        )
        if config.differences == "forward":
            text = base[0]
        else:  # two-sided differences never ask at the context itself
            text = self.box.encode_prompts(context[None], self.class_names, config.position)[0]
        return estimate.gradient, estimate.base_loss, text


class ExactGradient:
    """True prompt gradients through the white box (the CoOp reference)."""

    def __init__(self, white_box, class_names, config):
        self.box, self.class_names, self.config = white_box, class_names, config

    def __call__(self, context, features, offsets, labels, generator, previous):
        with torch.enable_grad():
            point = context.detach().requires_grad_()
            text = self.box.encode_prompts(point[None], self.class_names, self.config.position)
            loss = self.box.losses(text, features, labels, offsets)[0]
            (gradient,) = torch.autograd.grad(loss, point)
        return gradient, loss.item(), text[0].detach()


def learning_rate(base: float, epoch: int, config) -> float:
    """Cosine per epoch after `warmup_epochs` at `warmup_lr`, as in CoOp and CBBT."""
    if epoch < config.warmup_epochs:
        return min(base, config.warmup_lr)
    return 0.5 * base * (1 + math.cos(math.pi * (epoch - config.warmup_epochs) / config.epochs))


def tune(
    box,
    support: Support,
    config,
    session: Session,
    *,
    adapter: nn.Module,
    adapter_optimizer: torch.optim.Optimizer | None = None,
    context: torch.Tensor | None = None,
    prompt_gradient: Callable | None = None,
    text: torch.Tensor | None = None,
) -> Fitted:
    """Run the loop for `config.epochs` epochs.

    Args:
        adapter: output-side module; trained if `adapter_optimizer` is given.
        context, prompt_gradient: the start (M, D) or (C, M, D) and the source of
            its gradients; without them the prompts stay at `text` (C, E).

    Returns the classifiers and the history. Raises ValueError without shots.
    """
    n = len(support.labels)
    if not n:
        raise ValueError("there is nothing to tune on: the support set is empty, choose shots ≥ 1")
    batch = min(config.batch_size, n)
    steps_per_epoch = n // batch  # the incomplete batch is dropped
    loop = _Loop(context, adapter, adapter_optimizer, text, config)
    loop.restore(session.checkpoint, box.ledger, session.judge.ledger)

    def classifier() -> Classifier:
        now = loop.text
        if loop.context is not None:
            now = session.judge.encode_prompts(loop.context.detach()[None], support.class_names, config.position)[0]
        return Classifier(now.detach(), adapter, box.logit_scale)

    total = config.epochs * steps_per_epoch
    saved = time.monotonic()
    for step in tqdm(
        range(loop.step, total), initial=loop.step, total=total, desc="tune", delay=3, disable=not session.progress, leave=False
    ):
        epoch, within = divmod(step, steps_per_epoch)
        order = torch.randperm(n, generator=generator_for(config.seed, "order", epoch))
        rows = order[within * batch : (within + 1) * batch].to(support.labels.device)
        raw, labels = support.views[epoch % len(support.views)][rows], support.labels[rows]
        features, offsets = adapter(raw)

        if prompt_gradient is not None and step % config.prompt_every == 0:
            scored = (features, offsets, labels) if config.scoring == "batch" else _whole(support, adapter)
            generator = generator_for(config.seed, "directions", step)
            gradient, loss, loop.text = prompt_gradient(
                loop.context.detach(), *map(_detach, scored), generator, loop.previous
            )
            loop.update_prompt(gradient, loss, epoch)
        if adapter_optimizer is not None:
            logits = box.logit_scale * features @ loop.text.T
            loop.update_adapter(F.cross_entropy(logits if offsets is None else logits + offsets, labels), epoch)
        loop.step += 1

        if within == steps_per_epoch - 1:
            loop.close_epoch(epoch, classifier(), support, session, box.ledger)
        if session.checkpoint and time.monotonic() - saved > session.save_every:
            loop.save(session.checkpoint, box.ledger, session.judge.ledger)
            saved = time.monotonic()
    return loop.fitted(classifier, session.judge, support, config)


def _whole(support: Support, adapter: nn.Module):
    """Adapted features, offsets and labels of every view of every shot."""
    with torch.no_grad():
        return *adapter(support.views.flatten(0, 1)), support.labels.repeat(len(support.views))


def _detach(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.detach()


class _Loop:
    """The state of `tune`: parameters, optimisers, history, and the best on validation."""

    def __init__(self, context, adapter, adapter_optimizer, text, config):
        self.config, self.adapter, self.adapter_optimizer = config, adapter, adapter_optimizer
        self.text = text  # class features that the adapter is trained against
        self.context = None if context is None else nn.Parameter(context.clone())
        self.prompt_optimizer = None
        if self.context is not None:
            self.prompt_optimizer = torch.optim.Adam(
                [self.context], lr=config.prompt_lr, weight_decay=config.weight_decay
            )
        self.adapter_lr = adapter_optimizer.param_groups[0]["lr"] if adapter_optimizer else 0.0
        self.previous: torch.Tensor | None = None  # the last estimate of the prompt's gradient
        self.step = 0
        self.history: list[dict] = []
        self.losses: list[float] = []  # of the running epoch: the prompt's, where there is one
        self.gradient_norms: list[float] = []
        self.best_epoch: int | None = None
        self.best: dict[str, torch.Tensor] = {}

    def update_prompt(self, gradient: torch.Tensor, loss: float, epoch: int) -> None:
        self.losses.append(loss)
        self.previous = gradient
        self.context.grad = gradient.clone()
        norm = nn.utils.clip_grad_norm_([self.context], self.config.clip_norm)
        self.gradient_norms.append(norm.item())
        self.prompt_optimizer.param_groups[0]["lr"] = learning_rate(self.config.prompt_lr, epoch, self.config)
        self.prompt_optimizer.step()

    def update_adapter(self, loss: torch.Tensor, epoch: int) -> None:
        if self.context is None:
            self.losses.append(loss.item())
        self.adapter_optimizer.zero_grad()
        loss.backward()
        self.adapter_optimizer.param_groups[0]["lr"] = learning_rate(self.adapter_lr, epoch, self.config)
        self.adapter_optimizer.step()

    def close_epoch(self, epoch, classifier, support, session, ledger) -> None:
        """Write the epoch's row; remember the parameters if they are the best on validation."""
        row = {"epoch": epoch + 1, "step": self.step}
        if self.losses:  # with few shots an epoch may pass between two prompt steps
            row["train_loss"] = sum(self.losses) / len(self.losses)
        if self.gradient_norms:
            row["gradient_norm"] = sum(self.gradient_norms) / len(self.gradient_norms)
        row |= ledger.counts
        if len(support.val_labels):
            row["val_accuracy"] = classifier.accuracy(support.val_features, support.val_labels)
            if row["val_accuracy"] > max((r["val_accuracy"] for r in self.history), default=-1.0):
                self.best_epoch, self.best = epoch + 1, copy.deepcopy(self.parameters())
        self.history.append(row | session.observe(classifier))
        self.losses, self.gradient_norms = [], []

    def parameters(self) -> dict[str, torch.Tensor]:
        tensors = {f"adapter.{key}": value for key, value in self.adapter.state_dict().items()}
        if self.context is not None:
            tensors["context"] = self.context.detach()
        return tensors

    def fitted(self, classifier, judge, support, config) -> Fitted:
        """Both classifiers, each with an adapter of its own."""
        last = classifier()
        if self.best_epoch is None:
            return Fitted(last, history=self.history)
        best_adapter = copy.deepcopy(self.adapter)
        best_adapter.load_state_dict(_part(self.best, "adapter."))
        best_text = last.text
        if self.context is not None:
            best_text = judge.encode_prompts(self.best["context"][None], support.class_names, config.position)[0]
        best = Classifier(best_text.detach(), best_adapter, last.logit_scale)
        return Fitted(last, best, self.best_epoch, self.history)

    # ---- checkpoints ---------------------------------------------------------

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        pairs = {"prompt_optimizer": self.prompt_optimizer, "adapter_optimizer": self.adapter_optimizer}
        return {name: optimizer for name, optimizer in pairs.items() if optimizer is not None}

    def save(self, path: Path, ledger, judge_ledger) -> None:
        """Write everything in one file that appears whole or not at all."""
        tensors = {f"now.{key}": value for key, value in self.parameters().items()}
        tensors |= {f"best.{key}": value for key, value in self.best.items()}
        remembered = {"previous": self.previous, "text": self.text}
        tensors |= {key: value for key, value in remembered.items() if value is not None}
        for name, optimizer in self._optimizers().items():
            for index, parameter in enumerate(optimizer.param_groups[0]["params"]):
                for key, value in optimizer.state[parameter].items():
                    tensors[f"{name}.{index}.{key}"] = value
        progress = {
            "step": self.step,
            "history": self.history,
            "losses": self.losses,
            "gradient_norms": self.gradient_norms,
            "best_epoch": self.best_epoch,
            "ledger": ledger.counts,
            "judge_ledger": judge_ledger.counts,
            "config": self.config.run_id,
        }
        partial = path.with_suffix(".partial")
        save_file({key: value.contiguous() for key, value in tensors.items()}, partial, {"progress": json.dumps(progress)})
        os.replace(partial, path)

    def restore(self, path: Path | None, ledger, judge_ledger) -> None:
        """Go on where `path` stopped, if it exists; ValueError if it is another run's."""
        if path is None or not path.exists():
            return
        with safetensors.safe_open(path, framework="pt") as file:
            progress = json.loads(file.metadata()["progress"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        if progress["config"] != self.config.run_id:
            raise ValueError(f"{path} belongs to run {progress['config']}, not to {self.config.run_id}")
        self.adapter.load_state_dict(_part(tensors, "now.adapter."))
        if self.context is not None:
            self.context.data.copy_(tensors["now.context"])
        device = self._device()
        self.previous, self.text = (tensors[k].to(device) if k in tensors else None for k in ("previous", "text"))
        for name, optimizer in self._optimizers().items():
            for index, parameter in enumerate(optimizer.param_groups[0]["params"]):
                saved = _part(tensors, f"{name}.{index}.")
                # Step counters stay on the CPU, where the optimisers keep them.
                optimizer.state[parameter] = {k: v if v.ndim == 0 else v.to(parameter) for k, v in saved.items()}
        self.best = {key: value.to(device) for key, value in _part(tensors, "best.").items()}
        for key in ("step", "history", "losses", "gradient_norms", "best_epoch"):
            setattr(self, key, progress[key])
        ledger.counts.update(progress["ledger"])
        judge_ledger.counts.update(progress["judge_ledger"])

    def _device(self) -> torch.device:
        return next(iter(self.parameters().values())).device


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
