"""Comparison of estimated and true gradients, measured through the white box.

Each function here answers one question about prompt gradients on the support set of
a task and returns a tidy table, one row per repeat: against the number of directions
(`cosine_by_queries`) and the dimension (`norm_by_dimension`). `cbbt.gradients.landscape`
covers the loss along a gradient, `cbbt.gradients.noise` the errors of a slope. A repeat
is one batch of images with one draw of directions; repeat r has the same batch in every
table, so that families are compared in pairs. Columns that start with `expected_` hold
what `cbbt.gradients.theory` predicts for a linear loss; if the prediction uses the true
gradient, the docstring says so. Methods use nothing of this: they see no true gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import lazy_loader
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from cbbt.box.blackbox import WhiteBox
from cbbt.box.prompts import initial_context
from cbbt.data.features import encode_items
from cbbt.data.task import labels_of
from cbbt.gradients.directions import DIRECTIONS, Draw, guided, principal_directions, subspace
from cbbt.gradients.estimators import FACTORS, GradientEstimate, estimate_gradient
from cbbt.gradients.theory import Expected, expected, expected_guided, expected_in_subspace
from cbbt.mini_clip.captions import known_phrases
from cbbt.photo_clip.model import read_photo_clip
from cbbt.seeding import generator_for

open_clip = lazy_loader.load("open_clip")


@dataclass(frozen=True)
class PromptProblem:
    """The loss of a context on a support set, with its true gradient.

    box: the white box. features: unit-norm image features (n, E). labels: (n,).
    context: the point (M, D) at which gradients are taken.
    """

    box: WhiteBox
    features: torch.Tensor
    labels: torch.Tensor
    class_names: tuple[str, ...]
    context: torch.Tensor

    @property
    def dimension(self) -> int:
        """d = M · D."""
        return self.context.numel()

    def loss(self, rows: torch.Tensor | None = None) -> Callable[[torch.Tensor], torch.Tensor]:
        """Mean cross-entropy on images `rows` (all if None), as a map (N, M, D) → (N,)."""
        rows = torch.arange(len(self.labels)) if rows is None else rows
        features, labels = self.features[rows], self.labels[rows]
        return lambda contexts: self.box.losses(self.box.encode_prompts(contexts, self.class_names), features, labels)

    def gradient(self, rows: torch.Tensor | None = None) -> torch.Tensor:
        """The true gradient (M, D) of that loss at the context; one loss query."""
        with torch.enable_grad():
            point = self.context.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self.loss(rows)(point[None])[0], point)
        return gradient

    def batch(self, size: int, seed: int, repeat: int) -> torch.Tensor:
        """Rows of `size` different images (all if fewer), the same for a seed and repeat."""
        order = torch.randperm(len(self.labels), generator=generator_for(seed, "analysis batch", repeat))
        return order[:size].to(self.labels.device)


def prompt_problem(box: WhiteBox, task, length: int = 1, init: str = "a") -> PromptProblem:
    """The problem of tuning `length` context vectors, initialised from `init`, on the task's shots."""
    features = F.normalize(encode_items(box, task.train), dim=-1)
    context = initial_context(box, init, length, generator=generator_for(0, "analysis context"))
    return PromptProblem(box, features, labels_of(task.train).to(box.device), task.class_names, context)


def with_length(problem: PromptProblem, length: int) -> PromptProblem:
    """The same problem with its first context vector repeated `length` times."""
    context = problem.context[:1].repeat(length, 1)
    return PromptProblem(problem.box, problem.features, problem.labels, problem.class_names, context)


def agreement(estimate: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """Cosine, cosine² and norm ratio ‖ĝ‖/‖g‖ of two gradients of the same shape."""
    cosine = F.cosine_similarity(estimate.flatten().double(), truth.flatten().double(), dim=0).item()
    ratio = (estimate.double().norm() / truth.double().norm()).item()
    return {"cosine": cosine, "squared_cosine": cosine**2, "norm_ratio": ratio}


# ---- against the number of directions ----------------------------------------


@dataclass(frozen=True)
class History:
    """Estimates from earlier batches: gradients (k, d), and their cost in loss queries."""

    gradients: torch.Tensor
    queries: int


@dataclass(frozen=True)
class Family:
    """A family of directions for one problem, with its theory: (q, true gradient) → `Expected`.

    informed: whether that theory uses the true gradient, which no user of a black box has; else it follows from q and d.
    history: loss queries spent before the first direction is drawn.
    """

    draw: Draw
    expected: Callable[[int, torch.Tensor], Expected]
    informed: bool = False
    history: int = 0


def plain_family(name: str) -> Family:
    """A family of `DIRECTIONS` by name."""
    return Family(DIRECTIONS[name], lambda q, gradient: expected(q, gradient.numel(), name))


def subspace_family(basis: torch.Tensor) -> Family:
    """Directions in the span of `basis` (k, d)."""
    orthonormal = torch.linalg.qr(basis.T.double())[0].T

    def theory(q: int, gradient: torch.Tensor) -> Expected:
        gradient = gradient.flatten().double()
        captured = (orthonormal @ gradient).square().sum() / gradient.square().sum()
        return expected_in_subspace(q, len(basis), float(captured))

    return Family(subspace(basis), theory, informed=True)


def guided_family(past: History, mixing: float = 0.5) -> Family:
    """Directions that favour the span of past gradients."""

    def theory(q: int, gradient: torch.Tensor) -> Expected:
        return expected_guided(q, past.gradients, gradient.flatten(), mixing)

    return Family(guided(past.gradients, mixing), theory, informed=True, history=past.queries)


def past_gradients(problem: PromptProblem, count: int, q: int, batch_size: int, seed: int) -> History:
    """`count` estimates on other batches, as a training run would remember them; count · (q + 1) loss queries."""
    estimates = []
    for index in range(count):
        batch = problem.batch(batch_size, seed, -1 - index)  # numbers that no repeat has
        generator = generator_for(seed, "past", index)
        estimates.append(estimate_gradient(problem.loss(batch), problem.context, q, generator=generator))
    gradients = torch.stack([estimate.gradient.flatten() for estimate in estimates]).cpu()
    return History(gradients, sum(estimate.queries for estimate in estimates))


def vocabulary_words(backbone: str, most: int = 4000) -> list[str]:
    """Words of the text tower's vocabulary: all for "mini", the most frequent ones for "photo" and CLIP."""
    if backbone == "mini":
        return sorted({word for phrase in known_phrases() for word in phrase.split()})
    ids = open_clip.get_tokenizer("RN50").encoder  # whole words are sorted by frequency
    known = set(read_photo_clip()["vocabulary"].tolist() if backbone == "photo" else ids.values())
    words = [token.removesuffix("</w>") for token, number in ids.items() if token.endswith("</w>") and number in known]
    return [word for word in words if word.isascii() and word.isalpha()][:most]


def families(problem: PromptProblem, words: list[str], size: int, past: History, seed: int) -> dict[str, Family]:
    """All families: the plain ones, two subspaces of `size` dimensions, and ones guided by `past`.

    words: their token embeddings are the vocabulary for the principal subspace.
    """
    embeddings = torch.cat([problem.box.token_embeddings(word) for word in words]).cpu().unique(dim=0)
    random_basis = torch.randn(size, problem.dimension, generator=generator_for(seed, "random subspace"))
    return {name: plain_family(name) for name in DIRECTIONS} | {
        "subspace, vocabulary": subspace_family(principal_directions(embeddings, size, len(problem.context))),
        "subspace, random": subspace_family(random_basis),
        "guided": guided_family(past),
    }


def cosine_by_queries(
    problem: PromptProblem,
    choices: dict[str, Family],
    counts: list[int],
    repeats: int,
    batch_size: int = 32,
    seed: int = 1,
    progress: bool = False,
) -> pd.DataFrame:
    """Agreement of forward estimates against q, with the paper's ε.

    `counts` are the q's; within a repeat they are nested: the first q of one draw of
    max(counts) directions, which costs max(counts) + 1 loss queries.
    Columns: family, q, repeat, cosine, squared_cosine, norm_ratio, expected_ of each,
    queries (q + 1, and those of the family's history), informed (see `Family`).
    """
    table = []
    for family, repeat in tqdm(grid(choices, range(repeats)), desc="against q", disable=not progress, leave=False):
        rows = problem.batch(batch_size, seed, repeat)
        truth = problem.gradient(rows)
        generator = generator_for(seed, "against q", family, repeat)
        choice = choices[family]
        for estimate in nested(problem.loss(rows), problem.context, choice.draw, counts, generator):
            q = estimate.queries - 1
            theory = choice.expected(q, truth.cpu())
            keys = {"family": family, "q": q, "repeat": repeat}
            cost = {"queries": choice.history + estimate.queries, "informed": choice.informed}
            table.append(keys | agreement(estimate.gradient, truth) | prefixed(theory) | cost)
    return pd.DataFrame(table)


def nested(loss, x, draw: Draw, counts, generator) -> list[GradientEstimate]:
    """Estimates from the first q directions of one draw, for every q in `counts`."""
    most = max(counts)
    probes, readouts = draw(most, x.numel(), generator)

    def first(q, dimension, generator):
        return probes[:q], readouts[:q]

    whole = estimate_gradient(loss, x, most, directions=first, generator=generator)
    answers = recorded(whole)
    return [estimate_gradient(answers, x, q, directions=first, generator=generator) for q in counts]


def recorded(estimate: GradientEstimate) -> Callable[[torch.Tensor], torch.Tensor]:
    """A loss that replays the losses of a forward estimate, in their order, without a query."""
    answers = torch.cat([torch.tensor([estimate.base_loss]).to(estimate.losses), estimate.losses])
    return lambda points: answers[: len(points)]


# ---- against the dimension ---------------------------------------------------


def norm_by_dimension(
    problem: PromptProblem, lengths: list[int], q: int, repeats: int, batch_size: int = 32, seed: int = 1, progress: bool = False
) -> pd.DataFrame:
    """Agreement against d = M · D under both factors, with the paper's ε.

    The released factor 1/ε equals d up to d = 1000 and stays 1000 above, so its estimate
    is min(1, 1000/d) of the unbiased one. Both are computed from the same losses.
    Columns: length, dimension, factor, repeat, cosine, squared_cosine, norm_ratio,
    expected_ of each.
    """
    table = []
    for length, repeat in tqdm(grid(lengths, range(repeats)), desc="against d", disable=not progress, leave=False):
        longer = with_length(problem, length)
        rows = longer.batch(batch_size, seed, repeat)
        truth, loss = longer.gradient(rows), longer.loss(rows)
        for factor in FACTORS:
            generator = generator_for(seed, "against d", length, repeat)
            estimate = estimate_gradient(loss, longer.context, q, factor=factor, generator=generator)
            loss = recorded(estimate)  # for the next factor
            theory = prefixed(expected(q, longer.dimension))
            if factor == "released":
                theory["expected_norm_ratio"] *= 1 / (estimate.epsilon * longer.dimension)
            keys = {"length": length, "dimension": longer.dimension, "factor": factor, "repeat": repeat}
            table.append(keys | agreement(estimate.gradient, truth) | theory)
    return pd.DataFrame(table)


# ---- tables ------------------------------------------------------------------


def grid(first, second) -> list[tuple]:
    """All pairs; the second entry varies fastest."""
    return [(a, b) for a in first for b in second]


def prefixed(theory: Expected) -> dict[str, float]:
    """Columns expected_cosine, expected_squared_cosine, expected_norm_ratio."""
    return {f"expected_{name}": value for name, value in vars(theory).items()}
