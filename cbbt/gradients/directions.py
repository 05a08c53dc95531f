"""Families of directions along which a loss is queried.

A family draws *probes* u_1 … u_q, the directions in which the point is moved, and
*readouts* w_1 … w_q, the vectors that multiply the measured slopes, both (q, d). On a
linear function with gradient g the estimate is

    ĝ = (1/q) Σ_i (u_iᵀ g) w_i ,   unbiased exactly if  E[w uᵀ] = I .

Each docstring states bias, variance E‖ĝ − g‖² and the mean squared cosine between ĝ
and g on a linear function; `cbbt.gradients.theory` holds the formulas as code, and the
tests simulate them. A mean that depends on the direction of g is taken over g of
uniform direction.

The plain families have the signature (q, d, generator) and are found by name in
`DIRECTIONS`; `subspace`, `guided` and `remembering` take further arguments and return
such a function. Those of `LEARNING` use the estimates of earlier steps; a training
loop gets them, like any other, from `family`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Draw = Callable[[int, int, torch.Generator], tuple[torch.Tensor, torch.Tensor]]

LEARNING = ("guided", "remembering")
MEMORY = 8  # estimates that a training loop keeps for the families of `LEARNING`


def sphere(q: int, dimension: int, generator: torch.Generator):
    """Uniform on the unit sphere, w = d·u (Flaxman et al. 2005; CBBT).

    Unbiased. E‖ĝ − g‖² = ‖g‖² (d − 1)/q. Mean squared cosine 1/d for one direction,
    (2d − 1)/d² for two; in general slightly above the q/(q + d − 1) of Gaussian
    probes, whose unequal lengths weight the directions unequally.
    """
    probes = torch.randn(q, dimension, generator=generator)
    probes = probes / probes.norm(dim=1, keepdim=True)
    return probes, dimension * probes


def gaussian(q: int, dimension: int, generator: torch.Generator):
    """Standard normal, w = u (Nesterov & Spokoiny 2017).

    Unbiased. E‖ĝ − g‖² = ‖g‖² (d + 1)/q. The squared cosine is distributed as
    Beta(q/2, (d − 1)/2), with mean q/(q + d − 1) exactly. Probes have length near
    √d, so the same ε reaches √d times as far as with unit probes.
    """
    probes = torch.randn(q, dimension, generator=generator)
    return probes, probes


def rademacher(q: int, dimension: int, generator: torch.Generator):
    """Independent signs, w = u (Spall 1992, whose element-wise inverse it equals).

    Unbiased. E‖ĝ − g‖² = ‖g‖² (d − 1)/q. Mean squared cosine as for the sphere, to
    first order in 1/d. Probes have length √d.
    """
    probes = torch.randint(0, 2, (q, dimension), generator=generator) * 2.0 - 1.0
    return probes, probes


def spsa(q: int, dimension: int, generator: torch.Generator):
    """Entries ±U[½, 1], w = 1/u element by element (SPSA with the draw of BlackVIP).

    Unbiased, because E[u_j/u_k] is 1 for j = k and 0 otherwise; with w = u the mean would
    be (7/12) g. E‖ĝ − g‖² = ‖g‖² (7/6)(d − 1)/q, as E[u²] E[1/u²] = 7/12 · 2. To
    leading order in 1/d, q directions are worth (6q + 1)/7 Gaussian ones.
    """
    signs = torch.randint(0, 2, (q, dimension), generator=generator) * 2.0 - 1.0
    probes = signs * (0.5 + 0.5 * torch.rand(q, dimension, generator=generator))
    return probes, 1 / probes


def coordinate(q: int, dimension: int, generator: torch.Generator):
    """Coordinate axes drawn without replacement, w = d·u; exact when d divides q.

    Unbiased over draws. E‖ĝ − g‖² = ‖g‖² r(d − r)/q² with r = q mod d, which is
    d/q − 1 for q ≤ d; mean squared cosine q/d there, for every g. More than d
    directions are several independent permutations.
    """
    axes = [torch.randperm(dimension, generator=generator) for _ in range(0, q, dimension)]
    probes = torch.zeros(q, dimension)
    probes[torch.arange(q), torch.cat(axes)[:q]] = 1
    return probes, dimension * probes


def orthogonal(q: int, dimension: int, generator: torch.Generator):
    """Orthonormal frames, Haar-uniform, w = d·u; exact when d divides q (Choromanski et al. 2018).

    Unbiased over draws. E‖ĝ − g‖² = ‖g‖² r(d − r)/q² with r = q mod d. For q < d the
    squared cosine is distributed as Beta(q/2, (d − q)/2), with mean q/d. More than d
    directions are several independent frames.
    """
    frames = []
    for start in range(0, q, dimension):
        columns = min(dimension, q - start)
        square = torch.randn(dimension, columns, generator=generator, dtype=torch.float64)
        basis, upper = torch.linalg.qr(square)
        # The sign convention that makes QR of a Gaussian matrix Haar (Mezzadri 2007).
        frames.append((basis * upper.diagonal().sign()).T)
    probes = torch.cat(frames).float()
    return probes, dimension * probes


def subspace(basis: torch.Tensor) -> Draw:
    """Uniform on the unit sphere of the span of `basis` (k, d), w = k·u.

    E[ĝ] = Pg, the projection onto the span: the bias is the part of g outside.
    E‖ĝ − g‖² = ‖g − Pg‖² + ‖Pg‖² (k − 1)/q. The squared cosine is that of the sphere
    in k dimensions times ‖Pg‖²/‖g‖². A random span has ‖Pg‖²/‖g‖² = k/d on average
    and loses to the whole sphere at every q; a span that contains the gradient wins.

    Raises ValueError if the rows of `basis` are not independent.
    """
    rows = _orthonormal(basis, "basis of the subspace")

    def draw(q: int, dimension: int, generator: torch.Generator):
        _check_width(rows, dimension, "basis of the subspace")
        within, readouts = sphere(q, len(rows), generator)
        return within @ rows, readouts @ rows

    return draw


def guided(past: torch.Tensor | None, mixing: float = 0.5) -> Draw:
    """Normal with most of its variance along past gradients (Maheswaranathan et al. 2019).

    u ~ N(0, Σ), Σ = (α/d) I + ((1 − α)/k) P, with P the projection onto the span of
    the k rows of `past` (k, d) and α = `mixing`; E‖u‖² = 1. w = u/λ with λ = α/d +
    (1 − α)/k, the variance along the span, so that

    E[ĝ] = Σg/λ: unbiased along the span, shrunk by (α/d)/λ outside of it; α = 1 is
    the Gaussian family. E‖ĝ − g‖² = ‖Σg/λ − g‖² + (gᵀΣg + gᵀΣ²g)/(λ² q). Mean squared
    cosine, to leading order, q (gᵀΣg)² / (‖g‖² [(q − 1)‖Σg‖² + gᵀΣg]). Without past
    gradients u ~ N(0, I/d): the Gaussian family, at length one.

    Raises ValueError for α outside (0, 1] or rows that are not independent.
    """
    if not 0 < mixing <= 1:
        raise ValueError(f"mixing must lie in (0, 1], got {mixing}")
    rows = None if past is None else _orthonormal(past, "past gradients")

    def draw(q: int, dimension: int, generator: torch.Generator):
        if rows is None:
            probes = torch.randn(q, dimension, generator=generator) / dimension**0.5
            return probes, dimension * probes
        _check_width(rows, dimension, "past gradients")
        everywhere, along = mixing / dimension, (1 - mixing) / len(rows)
        probes = everywhere**0.5 * torch.randn(q, dimension, generator=generator)
        probes = probes + along**0.5 * torch.randn(q, len(rows), generator=generator) @ rows
        return probes, probes / (everywhere + along)

    return draw


def remembering(previous: torch.Tensor | None) -> Draw:
    """Orthonormal frames whose first direction is the previous estimate, w = q·u.

    The estimate is the projection of g onto the frame: no direction is drawn twice, and
    keeping the result of earlier steps costs one query. E[ĝ]: the component along
    `previous` is exact, the rest is shrunk by (q − 1)/(d − 1).
    Mean squared cosine c + (1 − c)(q − 1)/(d − 1), where c is the squared cosine
    between `previous` and g; E‖ĝ − g‖² = ‖g‖² (1 − that). The scale does not matter
    to Adam. Without a previous estimate the whole frame is Haar-uniform.

    Raises ValueError for more directions than dimensions (use a smaller q) and for a
    previous estimate of another size.
    """
    known = previous is not None and bool(previous.any())
    first = previous.detach().cpu().double().reshape(1, -1) if known else None

    def draw(q: int, dimension: int, generator: torch.Generator):
        if q > dimension:
            raise ValueError(f"a frame in {dimension} dimensions has at most {dimension} directions, got q={q}")
        columns = torch.randn(dimension, q, generator=generator, dtype=torch.float64)
        if first is not None:
            _check_width(first, dimension, "previous estimate")
            columns[:, 0] = first[0]
        basis, upper = torch.linalg.qr(columns)
        probes = (basis * upper.diagonal().sign()).T.float()
        return probes, q * probes

    return draw


def principal_directions(embeddings: torch.Tensor, count: int, length: int = 1) -> torch.Tensor:
    """Basis (length · count, length · D) of the leading principal directions of token embeddings.

    `embeddings` is (tokens, D); each of the `length` context vectors gets the same
    `count` directions. A basis for `subspace` with d = length · D.
    Raises ValueError when `count` exceeds what the embeddings span.
    """
    centred = embeddings - embeddings.mean(dim=0)
    most = min(len(embeddings) - 1, embeddings.shape[1])
    if not 1 <= count <= most:
        raise ValueError(f"{len(embeddings)} embeddings have 1 to {most} principal directions, got {count}")
    directions = torch.linalg.svd(centred, full_matrices=False).Vh[:count].contiguous()
    return torch.kron(torch.eye(length), directions)


def _orthonormal(rows: torch.Tensor, title: str) -> torch.Tensor:
    """An orthonormal basis (k, d) of the span of k independent rows."""
    if rows.ndim != 2 or not 0 < len(rows) <= rows.shape[1]:
        raise ValueError(f"{title} must be (k, d) with 1 ≤ k ≤ d, got {tuple(rows.shape)}")
    rows = rows.detach().cpu().double()
    if not rows.isfinite().all():
        raise ValueError(f"the {title} must be finite")
    if torch.linalg.matrix_rank(rows) < len(rows):
        raise ValueError(f"the {len(rows)} rows of the {title} are not linearly independent")
    return torch.linalg.qr(rows.T)[0].T.float()


def _check_width(rows: torch.Tensor, dimension: int, title: str) -> None:
    if rows.shape[1] != dimension:
        raise ValueError(f"{title} has rows of {rows.shape[1]} numbers, but the point has {dimension}")


DIRECTIONS: dict[str, Draw] = {draw.__name__: draw for draw in (sphere, gaussian, rademacher, spsa, coordinate, orthogonal)}


def family(name: str, past: torch.Tensor | None = None) -> Draw:
    """The family `name` of `DIRECTIONS` or `LEARNING`.

    past: the last estimates (k, …), oldest first, or None; the families of `LEARNING` use
    them, except zero estimates, which have no direction.
    """
    if name in DIRECTIONS:
        return DIRECTIONS[name]
    if past is not None:
        past = past.flatten(1)
        past = past[past.any(dim=1)]
    if past is None or not len(past):
        past = None
    if name == "guided":
        return guided(past)
    return remembering(None if past is None else past[-1])
