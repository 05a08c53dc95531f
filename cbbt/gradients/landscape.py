"""What a loss looks like along a gradient, its estimate and other directions."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch
import torch.nn.functional as F

from cbbt.gradients.analysis import PromptProblem
from cbbt.gradients.estimators import estimate_gradient
from cbbt.seeding import generator_for


def losses_along(
    loss: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, ways: dict[str, torch.Tensor], distances: list[float]
) -> pd.DataFrame:
    """Loss after steps from x along several ways: a row per distance, a column per way.

    loss: (N, *x.shape) → (N,). ways: name → directions (k, *x.shape) of any length above 0; of several the mean loss
    is taken. distances: lengths of the steps, in the units of x; negative ones go backwards. k queries for each.
    """
    steps = torch.tensor(distances).to(x).view(-1, 1, *[1] * x.dim())
    walked = {}
    for name, directions in ways.items():
        units = F.normalize(directions.flatten(1), dim=1).view_as(directions)
        losses = loss((x + steps * units).flatten(0, 1))
        walked[name] = losses.view(len(distances), -1).mean(dim=1).tolist()
    return pd.DataFrame(walked, index=pd.Index(distances, name="distance"))


def landscape(
    problem: PromptProblem, q: int, reach: float = 1.0, points: int = 41, batch_size: int = 32, seed: int = 1
) -> pd.DataFrame:
    """Loss from −reach to reach along the true gradient, its estimate and a random direction.

    Columns: direction, distance (length of the step), loss, linear (L + distance · slope
    with the true slope along that direction).
    """
    rows = problem.batch(batch_size, seed, 0)
    loss, truth = problem.loss(rows), problem.gradient(rows)
    estimate = estimate_gradient(loss, problem.context, q, generator=generator_for(seed, "landscape estimate"))
    chance = torch.randn(truth.shape, generator=generator_for(seed, "landscape random")).to(truth)
    ways = {"true gradient": truth[None], f"estimate, q = {q}": estimate.gradient[None], "random": chance[None]}
    slopes = {name: (truth * (way[0] / way.norm())).sum().item() for name, way in ways.items()}
    walked = losses_along(loss, problem.context, ways, torch.linspace(-reach, reach, points).tolist())
    table = walked.melt(var_name="direction", value_name="loss", ignore_index=False).reset_index()
    base = loss(problem.context[None]).item()
    return table.assign(linear=base + table.distance * table.direction.map(slopes))[["direction", "distance", "loss", "linear"]]
