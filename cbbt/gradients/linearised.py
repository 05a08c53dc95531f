"""Linearised answers: use of the whole answer to a query, not only its loss.

A loss query reduces a box's answer, C text features or a table of logits, to one number. Kept
whole, the answers y(x + ε u_i) to steps along orthonormal directions u_i give a *local model*

    ŷ(a) = N(y(x) + Σ_i a_i J_i),   J_i = [y(x + ε u_i) − y(x)] / ε,   for y(x + Σ_i a_i u_i)

where N normalises features and leaves logits as they are. On this model any loss of any batch
behind any adapter has exact gradients in a, without a query. So the loss is minimised within a
trust region, the box is queried for the true loss there, and x moves only if it falls.

Error of the model for y with second derivatives up to B (in the directions queried): each J_i is
off by at most ε B / 2 (forward differences), so y(x) + Σ_i a_i J_i by at most B ‖a‖² / 2 + √q ‖a‖ ε B / 2;
N removes the part of it along the answer. For linear y (logits of a linear model) it is exact.

Differences are expensive, C texts each, so old ones are kept: earlier directions stay in the
frame while there is room, and a move, whose answer is known, corrects them by Broyden's
rank-one update (Broyden, 1965), J_i ← J_i + a_i (y(x') − y(x) − Σ_j a_j J_j) / ‖a‖². The
trust region follows Levenberg (1944) and Marquardt (1963): three ridges, a factor of eight apart,
are tried in one query, and its scale grows if the largest step was best.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from cbbt.gradients.estimators import default_epsilon

RIDGES = (8e-2, 1e-2, 1e-3)  # times 1/radius²: from a small step to a large one
CANDIDATES = len(RIDGES)  # queries per move
SHRINK, GROW = 0.5, 3.0  # factors on the radius, if the smallest step was best, or the largest
RETREAT = 1 / 8  # factor on the radius, if no step improved the loss
ITERATIONS = 30  # of L-BFGS, without a query


class LinearisedAnswers:
    """A point x, the box's answer there, and the local model around it.

    Args:
        ask: (N, *x.shape) → answers (N, *answer.shape), no gradients needed; every call is a query of N.
        start: x. One query.
        radius: initial scale of a step, in the units of x, > 0; it adapts. If None, the root mean square
            length of the vectors in x's last dimension, those of a context.
        unit: whether answers are unit-norm along their last dimension (features), or not (logits).
        memory: most directions in the frame; the oldest are dropped first.
        epsilon: step of the differences; `default_epsilon` if None.

    Raises ValueError for a radius or epsilon that is not positive, or a memory below 1.
    """

    def __init__(
        self,
        ask: Callable[[torch.Tensor], torch.Tensor],
        start: torch.Tensor,
        *,
        radius: float | None = None,
        unit: bool = True,
        memory: int = 64,
        epsilon: float | None = None,
    ):
        epsilon = default_epsilon(start.numel()) if epsilon is None else epsilon
        radius = start.square().sum(dim=-1).mean().sqrt().item() if radius is None else radius
        for name, value in (("radius", radius), ("epsilon", epsilon), ("memory", memory)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        self.ask, self.unit, self.memory, self.epsilon = ask, unit, min(memory, start.numel()), epsilon
        self.radius = torch.tensor(float(radius), dtype=torch.float64)
        self.point = start.detach().clone()
        self.answer = ask(self.point[None])[0]
        self.directions = start.new_empty(0, start.numel())  # orthonormal rows, oldest first
        self.slopes = self.answer.new_empty(0, *self.answer.shape)  # J, one for each direction

    def predicted(self, steps: torch.Tensor) -> torch.Tensor:
        """ŷ(a) (*answer.shape) for a (k,), with k directions in the frame; differentiable."""
        answer = self.answer + torch.tensordot(steps, self.slopes, dims=1)
        return F.normalize(answer, dim=-1) if self.unit else answer

    def explore(self, q: int, generator: torch.Generator) -> None:
        """Query along q new random directions, orthonormal to those in the frame; q queries.

        Fewer if q exceeds the frame's memory or the remaining dimensions. The oldest directions are dropped to make room.
        """
        q = min(q, self.memory)
        kept = slice(max(0, len(self.directions) + q - self.memory), None)
        self.directions, self.slopes = self.directions[kept], self.slopes[kept]
        draw = torch.randn(q, self.point.numel(), generator=generator).to(self.point)
        for _ in range(2):  # the second pass removes what rounding left of the frame
            draw = draw - draw @ self.directions.T @ self.directions
            draw = torch.linalg.qr(draw.T)[0].T
        answers = self.ask(self.point + self.epsilon * draw.reshape(-1, *self.point.shape))
        self.directions = torch.cat([self.directions, draw])
        self.slopes = torch.cat([self.slopes, (answers - self.answer) / self.epsilon])

    def move(self, loss: Callable[[torch.Tensor], torch.Tensor]) -> float:
        """Move to a point of lower loss, if one is found; three queries. Returns the loss at the resulting point.

        loss: answers (*answer.shape) → scalar, differentiable.
        """
        steps = self._minimisers(loss)
        points = self.point + (steps @ self.directions).reshape(-1, *self.point.shape)
        answers = self.ask(points)
        losses = [loss(answer).item() for answer in answers]
        best, now = min(range(len(losses)), key=losses.__getitem__), loss(self.answer).item()
        if not losses[best] < now:
            self.radius = self.radius * RETREAT
            return now
        step = steps[best]
        missed = answers[best] - self.answer - torch.tensordot(step, self.slopes, dims=1)
        self.slopes = self.slopes + torch.tensordot(step / step.dot(step), missed, dims=0)
        self.point, self.answer = points[best], answers[best]
        self.radius = self.radius * {0: SHRINK, len(losses) - 1: GROW}.get(best, 1.0)
        return losses[best]

    def _minimisers(self, loss: Callable) -> torch.Tensor:
        """Minimisers (3, k) of loss(ŷ(a)) + ridge ‖a‖², each started from the one before; no query."""
        found = [self.point.new_zeros(len(self.directions))]
        for ridge in RIDGES:
            weight = ridge / self.radius.item() ** 2
            steps = found[-1].clone().requires_grad_()
            solver = torch.optim.LBFGS([steps], max_iter=ITERATIONS, line_search_fn="strong_wolfe", tolerance_change=1e-6)

            def closure(steps=steps, solver=solver, weight=weight):
                solver.zero_grad()
                value = loss(self.predicted(steps)) + weight * steps.dot(steps)
                value.backward()
                return value

            with torch.enable_grad():
                solver.step(closure)
            found.append(steps.detach())
        return torch.stack(found[1:])

    def state(self) -> dict[str, torch.Tensor]:
        """All that `restore` needs; the names are those of the attributes."""
        return {name: getattr(self, name) for name in ("radius", "point", "answer", "directions", "slopes")}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        for name in self.state():
            setattr(self, name, state[name])
