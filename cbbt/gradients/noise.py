"""Error sources of a slope: round-off, curvature, low precision, and the batch itself.

Measurements through the white box like those of `cbbt.gradients.analysis`, to be read
first: against the step ε (`cosine_by_epsilon`, and `cosine_by_family` for several
families of directions), forward against two-sided differences
at equal cost (`cosine_by_budget`), against the precision of the service
(`cosine_by_precision`), and the share of the batch in the error of a gradient
(`error_by_batch`). Tables have one row per repeat.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only
from tqdm.auto import tqdm

from cbbt.gradients.analysis import PromptProblem, agreement, grid, nested, prefixed
from cbbt.gradients.directions import DIRECTIONS
from cbbt.gradients.estimators import DIFFERENCES, default_epsilon, estimate_gradient
from cbbt.gradients.theory import expected_with_noise, relative_variance
from cbbt.seeding import generator_for

PRECISIONS = {
    "model in float64": ("model", torch.float64),
    "float32": (None, torch.float32),
    "products in TF32": ("products", None),
    "features in float16": ("features", torch.float16),
    "features in bfloat16": ("features", torch.bfloat16),
    "model in float16": ("model", torch.float16),
    "model in bfloat16": ("model", torch.bfloat16),
}
PRODUCTS = (F.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.einsum, torch.bmm)


# ---- against the step --------------------------------------------------------


@dataclass(frozen=True)
class SlopeErrors:
    """Error terms of a slope: round-off, and the second and third order of the loss."""

    rounding: float  # rms error of L(x + εu) − L(x), for any ε
    curvature: float  # rms of uᵀHu / 2
    third: float  # rms of the third-order coefficient

    def variance(self, epsilon: float, differences: str) -> float:
        """Error variance of one slope at `epsilon`; a two-sided one divides by twice the step."""
        smooth = (self.third * epsilon**2) ** 2
        if differences == "forward":
            return (self.rounding / epsilon) ** 2 + (self.curvature * epsilon) ** 2 + smooth
        return (self.rounding / (2 * epsilon)) ** 2 + smooth


def slope_errors(loss, x: torch.Tensor, gradient: torch.Tensor, generator: torch.Generator, q: int = 32) -> SlopeErrors:
    """Measure the three error terms along q random unit directions, given the true gradient; 7q loss queries.

    Steps: 10⁻⁴, where an odd difference without the slope is all round-off; 0.1 for
    the second order; 0.3 for the third.
    """
    units = F.normalize(torch.randn(q, x.numel(), generator=generator), dim=1).to(x)
    slopes = (units @ gradient.flatten()).double()

    def at(step):
        return loss(x + (step * units).view(q, *x.shape)).double()

    def odd(step):
        return (at(step) - at(-step)) / 2 - step * slopes

    even = (at(0.1) + at(-0.1)) / 2 - at(0.0)
    return SlopeErrors(rounding=2 * _rms(odd(1e-4)), curvature=_rms(even / 0.1**2), third=_rms(odd(0.3) / 0.3**3))


def cosine_by_epsilon(
    problem: PromptProblem,
    epsilons: list[float],
    q: int,
    repeats: int,
    batch_size: int = 32,
    seed: int = 1,
    progress: bool = False,
) -> pd.DataFrame:
    """Agreement of forward and two-sided sphere estimates against ε.

    The prediction has no free constant, but uses the true gradient: `slope_errors`
    needs it to measure round-off and curvature at three steps, which predict all
    others. It holds while the loss is cubic in the step. The paper's ε is added to
    `epsilons`.
    Columns: differences, epsilon, repeat, cosine, squared_cosine, norm_ratio,
    expected_ of each, is_default (whether ε is the paper's).
    """
    default = default_epsilon(problem.dimension)
    table = []
    for repeat in tqdm(range(repeats), desc="against ε", disable=not progress, leave=False):
        rows = problem.batch(batch_size, seed, repeat)
        truth, loss = problem.gradient(rows), problem.loss(rows)
        errors = slope_errors(loss, problem.context, truth, generator_for(seed, "slope errors", repeat))
        scale = problem.dimension / truth.square().sum().item()
        for differences, epsilon in grid(DIFFERENCES, sorted({*epsilons, default})):
            generator = generator_for(seed, "against epsilon", repeat)  # the same directions for all ε
            estimate = estimate_gradient(loss, problem.context, q, epsilon, differences=differences, generator=generator)
            theory = expected_with_noise(q, problem.dimension, scale * errors.variance(epsilon, differences))
            keys = {"differences": differences, "epsilon": epsilon, "repeat": repeat}
            measured = agreement(estimate.gradient, truth)
            table.append(keys | measured | prefixed(theory) | {"is_default": epsilon == default})
    return pd.DataFrame(table)


def cosine_by_family(
    problem: PromptProblem, names: list[str], epsilons: list[float], q: int, repeats: int, batch_size: int = 32, seed: int = 1
) -> pd.DataFrame:
    """Agreement of forward estimates of several families of `DIRECTIONS`, each at every step ε.

    Columns: family, epsilon, repeat, cosine, squared_cosine, norm_ratio.
    """
    table = []
    for repeat in range(repeats):
        rows = problem.batch(batch_size, seed, repeat)
        truth, loss = problem.gradient(rows), problem.loss(rows)
        for family, epsilon in grid(names, epsilons):
            generator = generator_for(seed, "family", repeat)  # equal directions for all ε
            estimate = estimate_gradient(loss, problem.context, q, epsilon, family, generator=generator)
            table.append({"family": family, "epsilon": epsilon, "repeat": repeat} | agreement(estimate.gradient, truth))
    return pd.DataFrame(table)


# ---- forward or two-sided, at equal cost -------------------------------------


def cosine_by_budget(
    problem: PromptProblem,
    budgets: list[int],
    epsilons: list[float],
    repeats: int,
    batch_size: int = 32,
    seed: int = 1,
    progress: bool = False,
) -> pd.DataFrame:
    """Agreement when both kinds of difference have the same budget of loss queries.

    It pays for budget − 1 directions with forward differences, budget // 2 with two-sided ones.
    Columns: budget, epsilon, differences, q, repeat, cosine, squared_cosine, norm_ratio.
    """
    table = []
    for budget, repeat in tqdm(grid(budgets, range(repeats)), desc="equal budget", disable=not progress, leave=False):
        rows = problem.batch(batch_size, seed, repeat)
        truth, loss = problem.gradient(rows), problem.loss(rows)
        for epsilon, differences in grid(epsilons, DIFFERENCES):
            q = budget - 1 if differences == "forward" else budget // 2
            generator = generator_for(seed, "equal budget", budget, repeat)
            estimate = estimate_gradient(loss, problem.context, q, epsilon, differences=differences, generator=generator)
            keys = {"budget": budget, "epsilon": epsilon, "differences": differences, "q": q, "repeat": repeat}
            table.append(keys | agreement(estimate.gradient, truth))
    return pd.DataFrame(table)


# ---- precision of the service ------------------------------------------------


def cosine_by_precision(
    problem: PromptProblem,
    epsilons: list[float],
    q: int,
    repeats: int,
    batch_size: int = 32,
    seed: int = 1,
    progress: bool = False,
) -> pd.DataFrame:
    """Agreement of forward estimates when the service computes in low precision, against ε.

    "features in …": the model runs in float32, and the returned text and image features
    are rounded. "model in …": matrix products run in that type, by autocast, as services
    do to save time; in float64 everything does. "products in TF32": inputs of matrix
    products keep ten bits of mantissa, as on a GPU with TF32 enabled. The reference is
    the float64 gradient by backpropagation.
    Columns: precision, epsilon, repeat, cosine, squared_cosine, norm_ratio, is_default.
    """
    default = default_epsilon(problem.dimension)
    table = []
    for precision, repeat in tqdm(grid(PRECISIONS, range(repeats)), desc="precision", disable=not progress, leave=False):
        rows = problem.batch(batch_size, seed, repeat)
        with Converted(torch.Tensor.double):
            truth = problem.gradient(rows)
        loss, point = rounded_loss(problem, rows, precision), problem.context.double()
        for epsilon in sorted({*epsilons, default}):
            generator = generator_for(seed, "precision", repeat)
            estimate = estimate_gradient(loss, point, q, epsilon, generator=generator)
            keys = {"precision": precision, "epsilon": epsilon, "repeat": repeat}
            table.append(keys | agreement(estimate.gradient, truth) | {"is_default": epsilon == default})
    return pd.DataFrame(table)


def rounded_loss(problem: PromptProblem, rows: torch.Tensor, precision: str):
    """The loss on images `rows` under a service of that precision, a key of `PRECISIONS`."""
    place, kind = PRECISIONS[precision]
    serving = {
        "products": lambda: Converted(to_tf32, PRODUCTS),
        "model": lambda: torch.autocast(problem.features.device.type, kind),
    }.get(place, nullcontext)
    if kind == torch.float64:
        serving = lambda: Converted(torch.Tensor.double)  # noqa: E731
    served = kind if place == "features" else torch.float32
    features, labels = problem.features[rows].to(served).float(), problem.labels[rows]

    def loss(contexts):
        with serving():
            text = problem.box.encode_prompts(contexts, problem.class_names)
            if kind == torch.float64:
                return problem.box.losses(text, features, labels)
        return problem.box.losses(text.to(served).float(), features, labels)

    return loss


class Converted(TorchFunctionMode):
    """In the block, float32 inputs of `functions` (of every torch function if None) pass through `convert`."""

    def __init__(self, convert, functions=None):
        super().__init__()
        self.convert, self.functions = convert, functions

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if self.functions is None or function in self.functions:
            args, kwargs = tree_map_only(torch.Tensor, self._converted, (args, kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _converted(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.convert(tensor) if tensor.dtype == torch.float32 else tensor


def to_tf32(tensor: torch.Tensor) -> torch.Tensor:
    """A float32 tensor rounded to ten bits of mantissa, which TF32 keeps of the 23."""
    return ((tensor.contiguous().view(torch.int32) + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)


# ---- the batch's own noise ---------------------------------------------------


def error_by_batch(
    problem: PromptProblem, batch_sizes: list[int], counts: list[int], repeats: int, seed: int = 1, progress: bool = False
) -> pd.DataFrame:
    """The error of an estimate, split into the batch's share and that of the finite differences.

    With g the gradient on the whole support set, g_B on a batch and ĝ its estimate,
    E‖ĝ − g‖² = E‖g_B − g‖² + E‖ĝ − g_B‖² for unbiased ĝ. Columns: batch_size, q,
    repeat, and in units of ‖g‖²: batch_error, estimator_error, total_error and
    expected_estimator_error, (d − 1)/q · ‖g_B‖², which uses the true g_B.
    """
    whole = problem.gradient()
    unit = whole.square().sum().item()
    table = []
    for size, repeat in tqdm(grid(batch_sizes, range(repeats)), desc="batches", disable=not progress, leave=False):
        rows = problem.batch(size, seed, repeat)
        exact = problem.gradient(rows)
        generator = generator_for(seed, "batches", size, repeat)
        for estimate in nested(problem.loss(rows), problem.context, DIRECTIONS["sphere"], counts, generator):
            q = estimate.queries - 1
            variance = relative_variance(q, problem.dimension, "sphere")
            table.append(
                {
                    "batch_size": len(rows),
                    "q": q,
                    "repeat": repeat,
                    "batch_error": (exact - whole).square().sum().item() / unit,
                    "estimator_error": (estimate.gradient - exact).square().sum().item() / unit,
                    "total_error": (estimate.gradient - whole).square().sum().item() / unit,
                    "expected_estimator_error": variance * exact.square().sum().item() / unit,
                }
            )
    return pd.DataFrame(table)


def _rms(values: torch.Tensor) -> float:
    return values.square().mean().sqrt().item()
