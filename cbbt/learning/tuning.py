"""The collaborative loop: a prompt by estimated gradients, an adapter by exact ones.

Each step takes one batch of cached image features and updates both sides from the
same current prompts (Guo et al., 2023):

    f', o = adapter(f)                               the user's side
    ĝ     = estimate of ∇_v mean CE(τ f'·t(v) + o)   queries to the box
    v     ← Adam(v, clip(ĝ, 5));  adapter ← optimiser(exact gradient)

The same loop trains the prompt alone, the adapter alone, and, with `ExactGradient`
through the white box, CoOp. A budget ends queries, not learning: the adapter's steps
cost none and continue; if the budget allows fewer prompt steps than planned, they are
spread over them. Read `tune` first. A run can stop at any step: every draw has its own
generator (`cbbt.seeding`), so a checkpoint holds only the parameters, the optimisers'
moments and the counts.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from cbbt.adapters import IdentityAdapter
from cbbt.gradients.directions import MEMORY, family
from cbbt.gradients.estimators import estimate_gradient
from cbbt.learning.fitting import Classifier, ContextPrompt, Fitted, Session, Support
from cbbt.learning.progress import Progress, optimizer_tensors, part, restore_optimizer
from cbbt.seeding import batch_rows, generator_for


class EstimatedGradient:
    """Prompt gradients from loss queries only (CBBT)."""

    def __init__(self, box, class_names, config):
        self.box, self.class_names, self.config = box, class_names, config
        losses = config.q + 1 if config.differences == "forward" else 2 * config.q
        sets = config.q + 1 if config.differences == "forward" else 2 * config.q + 1
        sets += config.fresh_text
        self.cost = {"loss_queries": losses, "class_prompts": sets * len(class_names)}

    def __call__(self, context, features, offsets, labels, generator, past):
        """Gradient like `context`, loss, and text features (C, E) at `context`.

        `past` holds the last estimates (k, *context.shape), oldest first; None in the first step.
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
            directions=family(config.directions, past),
            differences=config.differences,
            factor=config.factor,
            generator=generator,
        )
        if config.differences == "forward":
            text = base[0]
        else:  # two-sided differences never query the context itself
            text = self.box.encode_prompts(context[None], self.class_names, config.position)[0]
        return estimate.gradient, estimate.base_loss, text


class ExactGradient:
    """True prompt gradients through the white box (the CoOp reference)."""

    def __init__(self, white_box, class_names, config):
        self.box, self.class_names, self.config = white_box, class_names, config
        self.cost = {"loss_queries": 1, "class_prompts": (1 + config.fresh_text) * len(class_names)}

    def __call__(self, context, features, offsets, labels, generator, past):
        with torch.enable_grad():
            point = context.detach().requires_grad_()
            text = self.box.encode_prompts(point[None], self.class_names, self.config.position)
            loss = self.box.losses(text, features, labels, offsets)[0]
            (gradient,) = torch.autograd.grad(loss, point)
        return gradient, loss.item(), text[0].detach()


def learning_rate(base: float, epoch: float, config) -> float:
    """Cosine after `warmup_epochs` at `warmup_lr`, as in CoOp and CBBT.

    `epoch` counts from 0; it is an integer if the rate falls per epoch, not per step.
    """
    if epoch < config.warmup_epochs:
        return min(base, config.warmup_lr)
    return 0.5 * base * (1 + math.cos(math.pi * (epoch - config.warmup_epochs) / config.epochs))


def prompt_steps(total: int, every: int, affordable: int | None) -> set[int]:
    """Those of `total` steps that update the prompt: every `every`-th, or as many of these as are affordable, evenly spread."""
    planned = range(0, total, every)
    count = len(planned) if affordable is None else min(affordable, len(planned))
    return {planned[number * len(planned) // count] for number in range(count)}


def tune(
    box,
    support: Support,
    config,
    session: Session,
    *,
    adapter: nn.Module | None = None,
    adapter_optimizer: torch.optim.Optimizer | None = None,
    context: torch.Tensor | None = None,
    prompt_gradient: Callable | None = None,
    prompt_optimizer: Callable = torch.optim.Adam,
    text: torch.Tensor | None = None,
) -> Fitted:
    """Run the loop for `config.epochs` epochs, with the prompt's steps within the budget.

    An epoch has as many steps as the shots fill batches, and at least
    `config.min_epoch_steps`, for which few shots are repeated.

    Args:
        adapter: output-side module or None; trained if `adapter_optimizer` is given, and
            then neither used nor trained in the first `config.adapter_start` epochs.
        context, prompt_gradient: the initial context (M, D) or (C, M, D) and the source of
            its gradients; without them the prompts stay at `text` (C, E). The budget is
            planned with the source's `cost` of an estimate.
        prompt_optimizer: (parameters, lr, weight_decay) → the prompt's optimiser.

    Returns the classifiers and the history. Raises ValueError without shots, and
    BudgetExceeded if the budget does not allow one step of the prompt.
    """
    adapter = adapter or IdentityAdapter()
    n = len(support.labels)
    if not n:
        raise ValueError("the support set is empty: choose shots ≥ 1")
    steps_per_epoch = max(n // min(config.batch_size, n), config.min_epoch_steps)
    total = config.epochs * steps_per_epoch
    joined = config.adapter_start * steps_per_epoch if adapter_optimizer is not None else 0  # the adapter's first step
    asking = set()
    if prompt_gradient is not None:
        affordable = box.ledger.affordable_steps(prompt_gradient.cost)
        ends = joined if config.only_adapter and adapter_optimizer is not None else total
        asking = prompt_steps(ends, config.prompt_every, affordable)
    progress = Progress(config, session, box.ledger)
    loop = _Loop(context, prompt_optimizer, adapter, adapter_optimizer, text, config, progress)
    loop.restore(box.device)

    def classifier() -> Classifier:
        now = loop.text
        if loop.context is not None:
            now = session.judge.encode_prompts(loop.context.detach()[None], support.class_names, config.position)[0]
        present = adapter if loop.step > joined else IdentityAdapter()
        return Classifier(now.detach(), present, box.logit_scale, retext=ContextPrompt.of(loop.context, config.position))

    for step in tqdm(
        range(loop.step, total), initial=loop.step, total=total, desc="tune", delay=3, disable=not session.progress, leave=False
    ):
        epoch, within = divmod(step, steps_per_epoch)
        age = epoch if config.cosine == "epoch" else step / steps_per_epoch
        rows = batch_rows(config.seed, step, n, config.batch_size).to(support.labels.device)
        raw, labels = support.views[epoch % len(support.views)][rows], support.labels[rows]
        present = adapter if step >= joined else IdentityAdapter()
        features, offsets = present(raw)

        if step in asking:
            scored = (features, offsets, labels) if config.scoring == "batch" else _whole(support, present)
            generator = generator_for(config.seed, "directions", step)
            gradient, loss, loop.text = prompt_gradient(loop.context.detach(), *map(_detach, scored), generator, loop.past)
            loop.update_prompt(gradient, loss, age)
            if config.fresh_text:
                loop.text = box.encode_prompts(loop.context.detach()[None], support.class_names, config.position)[0].detach()
        if adapter_optimizer is not None and step >= joined:
            logits = box.logit_scale * features @ loop.text.T
            loop.update_adapter(F.cross_entropy(logits if offsets is None else logits + offsets, labels), age)
        progress.step += 1

        if within == steps_per_epoch - 1:
            progress.close_epoch(classifier(), loop.parameters(), support, loop.epoch_means())
        if progress.due:
            loop.save()
    return loop.fitted(classifier, support, joined)


def _whole(support: Support, adapter: nn.Module):
    """Adapted features, offsets and labels of every view of every shot."""
    with torch.no_grad():
        raw, labels = support.whole()
        return *adapter(raw), labels


def _detach(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.detach()


class _Loop:
    """The state of `tune`: parameters, optimisers, and the losses of the current epoch."""

    def __init__(self, context, prompt_optimizer, adapter, adapter_optimizer, text, config, progress):
        self.config, self.progress = config, progress
        self.adapter, self.adapter_optimizer = adapter, adapter_optimizer
        self.text = text  # class features that the adapter is trained against
        self.context = None if context is None else nn.Parameter(context.clone())
        self.prompt_optimizer = None
        if self.context is not None:
            self.prompt_optimizer = prompt_optimizer([self.context], lr=config.prompt_lr, weight_decay=config.weight_decay)
        self.adapter_lr = adapter_optimizer.param_groups[0]["lr"] if adapter_optimizer else 0.0
        self.past: torch.Tensor | None = None  # the last estimates of the prompt's gradient, oldest first
        self.losses: list[float] = []  # of the current epoch: the prompt's, if there is one
        self.gradient_norms: list[float] = []

    @property
    def step(self) -> int:
        return self.progress.step

    def update_prompt(self, gradient: torch.Tensor, loss: float, epoch: float) -> None:
        self.losses.append(loss)
        kept = [] if self.past is None else [self.past]
        self.past = torch.cat([*kept, gradient[None]])[-MEMORY:]
        self.context.grad = gradient.clone()
        norm = nn.utils.clip_grad_norm_([self.context], self.config.clip_norm)
        self.gradient_norms.append(norm.item())
        self.prompt_optimizer.param_groups[0]["lr"] = learning_rate(self.config.prompt_lr, epoch, self.config)
        self.prompt_optimizer.step()

    def update_adapter(self, loss: torch.Tensor, epoch: float) -> None:
        if self.context is None:
            self.losses.append(loss.item())
        self.adapter_optimizer.zero_grad()
        loss.backward()
        self.adapter_optimizer.param_groups[0]["lr"] = learning_rate(self.adapter_lr, epoch, self.config)
        self.adapter_optimizer.step()

    def epoch_means(self) -> dict:
        """Mean loss and gradient norm of the finished epoch, which may have no prompt step."""
        means = {"train_loss": self.losses, "gradient_norm": self.gradient_norms}
        self.losses, self.gradient_norms = [], []
        return {name: sum(values) / len(values) for name, values in means.items() if values}

    def parameters(self) -> dict[str, torch.Tensor]:
        tensors = {f"adapter.{key}": value for key, value in self.adapter.state_dict().items()}
        if self.context is not None:
            tensors["context"] = self.context.detach()
        return tensors

    def fitted(self, classifier, support: Support, joined: int) -> Fitted:
        """Both classifiers, each with its own adapter if that had started by then."""
        last, best = classifier(), self.progress.best
        trained = [group["params"] for optimizer in self._optimizers().values() for group in optimizer.param_groups]
        learned = sum(parameter.numel() for parameters in trained for parameter in parameters)
        if not best:
            return Fitted(last, history=self.progress.history, learned=learned)
        best_adapter = IdentityAdapter()
        if self.progress.history[self.progress.best_epoch - 1]["step"] > joined:
            best_adapter = copy.deepcopy(self.adapter)
            best_adapter.load_state_dict(part(best, "adapter."))
        best_text, retext = last.text, None
        if self.context is not None:
            judge, position = self.progress.session.judge, self.config.position
            best_text = judge.encode_prompts(best["context"][None], support.class_names, position)[0]
            retext = ContextPrompt.of(best["context"], position)
        best_val = Classifier(best_text.detach(), best_adapter, last.logit_scale, retext=retext)
        return Fitted(last, best_val, self.progress.best_epoch, self.progress.history, learned)

    # ---- checkpoints ---------------------------------------------------------

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        pairs = {"prompt_optimizer": self.prompt_optimizer, "adapter_optimizer": self.adapter_optimizer}
        return {name: optimizer for name, optimizer in pairs.items() if optimizer is not None}

    def save(self) -> None:
        tensors = {f"now.{key}": value for key, value in self.parameters().items()}
        remembered = {"past": self.past, "text": self.text}
        tensors |= {key: value for key, value in remembered.items() if value is not None}
        for name, optimizer in self._optimizers().items():
            tensors |= {f"{name}.{key}": value for key, value in optimizer_tensors(optimizer).items()}
        self.progress.save(tensors, losses=self.losses, gradient_norms=self.gradient_norms)

    def restore(self, device: torch.device) -> None:
        """Resume from the checkpoint, if there is one."""
        restored = self.progress.restore(device)
        if restored is None:
            return
        tensors, own = restored
        self.adapter.load_state_dict(part(tensors, "now.adapter."))
        if self.context is not None:
            self.context.data.copy_(tensors["now.context"])
        self.past, self.text = tensors.get("past"), tensors.get("text")
        for name, optimizer in self._optimizers().items():
            restore_optimizer(optimizer, part(tensors, f"{name}."))
        self.losses, self.gradient_norms = own["losses"], own["gradient_norms"]
