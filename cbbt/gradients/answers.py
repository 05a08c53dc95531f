"""The value of whole answers over single losses, measured on one prompt problem.

`local_model_error` measures the accuracy of the local model of `cbbt.gradients.linearised`;
`descents` tunes prompts with it, and with the gradient estimated from losses, and
counts the queries of each. Both return tidy tables. Nothing here is used by a method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from cbbt.gradients.analysis import PromptProblem, grid
from cbbt.gradients.estimators import estimate_gradient
from cbbt.gradients.linearised import CANDIDATES, LinearisedAnswers
from cbbt.seeding import generator_for

ESTIMATE = "estimated gradient"
State = tuple[int, torch.Tensor]  # prompt sets queried so far, context (M, D)


def linearised(problem: PromptProblem, memory: int) -> LinearisedAnswers:
    """The problem's context with its text features."""
    return LinearisedAnswers(
        lambda contexts: problem.box.encode_prompts(contexts, problem.class_names), problem.context, memory=memory
    )


def loss_of(text: torch.Tensor, problem: PromptProblem) -> torch.Tensor:
    """Cross-entropy of all the problem's images with text (C, E); differentiable, without a query."""
    return F.cross_entropy(problem.box.logit_scale * problem.features @ text.T, problem.labels)


def local_model_error(
    problem: PromptProblem, counts: list[int], lengths: list[float], repeats: int, seed: int = 1, progress: bool = False
) -> pd.DataFrame:
    """Error of the predicted text features after steps within the frame.

    counts: directions q of the frame, at most d. lengths: ‖a‖, as fractions of a context vector's
    length; a repeat has one frame, and one direction in it, drawn uniformly.
    Columns: q, repeat, length, error (root mean square over classes of ‖ŷ − y‖, between 0 and 2).
    """
    table = []
    for q, repeat in tqdm(grid(counts, range(repeats)), desc="local model", disable=not progress, leave=False):
        generator = generator_for(seed, "local model", q, repeat)
        answers = linearised(problem, memory=q)
        answers.explore(q, generator)
        unit = F.normalize(torch.randn(len(answers.directions), generator=generator), dim=0).to(problem.context)
        steps = torch.tensor(lengths).to(unit)[:, None] * answers.radius.to(unit) * unit
        there = answers.ask(problem.context + (steps @ answers.directions).reshape(-1, *problem.context.shape))
        for length, step, truth in zip(lengths, steps, there):
            error = (answers.predicted(step) - truth).square().sum(dim=-1).mean().sqrt().item()
            table.append({"q": q, "repeat": repeat, "length": length, "error": error})
    return pd.DataFrame(table)


def linearised_descent(problem: PromptProblem, q: int, memory: int, steps: int, seed: int) -> Iterator[State]:
    """Contexts of a descent on the local model, as in CBBT+; q + 3 prompt sets per step, and one at the start."""
    answers = linearised(problem, memory)
    yield 1, answers.point
    for index in range(steps):
        answers.explore(q, generator_for(seed, "directions", index))
        answers.move(lambda text: loss_of(text, problem))
        yield 1 + (index + 1) * (q + CANDIDATES), answers.point


def estimated_descent(
    problem: PromptProblem, q: int, rate: float, steps: int, batch_size: int, seed: int, every: int = 5
) -> Iterator[State]:
    """Contexts of Adam on CBBT's estimates, with a cosine schedule, after every `every` steps; q + 1 prompt sets per step."""
    context = problem.context.clone()
    optimizer = torch.optim.Adam([context], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for index in range(steps):
        if index % every == 0:
            yield index * (q + 1), context.clone()
        loss = problem.loss(problem.batch(batch_size, seed, index))
        estimate = estimate_gradient(loss, context, q, generator=generator_for(seed, "directions", index))
        context.grad = estimate.gradient
        optimizer.step()
        schedule.step()
    yield steps * (q + 1), context.clone()


def descents(
    problem: PromptProblem,
    judged: PromptProblem,
    seeds: list[int],
    q: int = 16,
    memories: tuple[int, ...] = (16, 64),
    steps: int = 20,
    estimate_q: int = 64,
    rate: float = 0.02,
    estimate_steps: int = 250,
    batch_size: int = 32,
    progress: bool = False,
) -> pd.DataFrame:
    """Loss on the support and accuracy on other images, against prompt sets queried.

    problem: its context is tuned. judged: one with other images, whose accuracy is reported and not used.
    q, memories, steps: for the linearised descents, one for each memory (most directions in the frame).
    estimate_q, rate, estimate_steps, batch_size: for the descent by estimated gradients.
    Columns: descent, seed, prompt_sets, loss, accuracy (percent).
    """
    choices: dict[str, Callable[[int], Iterator[State]]] = {
        f"linearised, q = {q}, {memory} directions kept": lambda seed, memory=memory: linearised_descent(
            problem, q, memory, steps, seed
        )
        for memory in memories
    }
    choices[f"{ESTIMATE}, q = {estimate_q}"] = lambda seed: estimated_descent(
        problem, estimate_q, rate, estimate_steps, batch_size, seed
    )
    table = []
    for name, seed in tqdm(grid(choices, seeds), desc="descents", disable=not progress, leave=False):
        for sets, context in choices[name](seed):
            (text,) = problem.box.encode_prompts(context[None], problem.class_names)
            right = (judged.features @ text.T).argmax(dim=-1) == judged.labels
            scores = {"loss": loss_of(text, problem).item(), "accuracy": 100 * right.double().mean().item()}
            table.append({"descent": name, "seed": seed, "prompt_sets": sets} | scores)
    return pd.DataFrame(table)
