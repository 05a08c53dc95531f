"""Estimators: exact where they should be, and as biased and noisy as their docstrings say."""

import math

import pytest
import torch

from cbbt.gradients.directions import DIRECTIONS, family, guided, principal_directions, remembering, sphere, subspace
from cbbt.gradients.estimators import default_epsilon, estimate_gradient
from cbbt.gradients.theory import expected, expected_guided, expected_in_subspace, expected_with_noise

D = 16
UNIT = ("sphere", "coordinate", "orthogonal")
pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(gradient):
    return lambda points: points.flatten(1) @ gradient


def quadratic(hessian, gradient):
    return lambda points: points @ gradient + 0.5 * ((points @ hessian) * points).sum(1)


def simulate(draw, q, gradients, seed=5):
    """Estimates (n, d) of a linear function, one draw of q directions for each gradient (n, d)."""
    generator, estimates = seeded(seed), []
    for gradient in gradients:
        probes, readouts = draw(q, len(gradient), generator)
        estimates.append((probes.double() @ gradient) @ readouts.double() / q)
    return torch.stack(estimates)


def generic(n, dimension, seed=9):
    """Gradients (n, d) of length one and uniform direction."""
    gradients = torch.randn(n, dimension, generator=seeded(seed), dtype=torch.float64)
    return gradients / gradients.norm(dim=1, keepdim=True)


def assert_mean(values, expectation, neglected=0.0):
    """Mean within four standard errors, plus what the formula says it neglects."""
    error = values.std(dim=0) / math.sqrt(len(values))
    assert ((values.mean(dim=0) - expectation).abs() <= 4.5 * error + neglected + 1e-6).all()


# ---- what each family promises ------------------------------------------------


@pytest.mark.parametrize("q", [1, 5, D, D + 5])
@pytest.mark.parametrize("name", DIRECTIONS)
def test_unbiased_with_the_stated_variance(name, q):
    gradient = generic(1, D)
    estimates = simulate(DIRECTIONS[name], q, gradient.expand(4000, D))
    assert_mean(estimates, gradient[0])
    errors = (estimates - gradient).square().sum(1)
    assert_mean(errors, expected(q, D, name).norm_ratio ** 2 - 1)


@pytest.mark.parametrize(
    "name, neglected", [("gaussian", 0), ("sphere", 2), ("rademacher", 2), ("spsa", 1), ("orthogonal", 0), ("coordinate", 0)]
)
@pytest.mark.parametrize("q", [1, 2, 8, 32, 40])
def test_cosines_follow_their_laws(name, neglected, q):
    """`neglected` is the order in 1/d that the law leaves out, relative to the mean; 0: nothing."""
    dimension = 32
    gradients = generic(2000, dimension)
    cosines = torch.cosine_similarity(simulate(DIRECTIONS[name], q, gradients), gradients)
    theory = expected(q, dimension, name)
    slack = theory.squared_cosine / dimension**neglected if neglected else 0.0
    assert_mean(cosines**2, theory.squared_cosine, slack)
    # The mean cosine rests on the Beta law, which holds to leading order but for Gaussian probes and frames.
    assert_mean(cosines, theory.cosine, theory.cosine / dimension if neglected else 2e-4)


@pytest.mark.parametrize("q, dimension, exact", [(1, 7, 1 / 7), (2, 3, 5 / 9), (2, 7, 13 / 49), (6, 2, 1 - 1 / 12)])
def test_sphere_law_is_exact_where_it_says_so(q, dimension, exact):
    assert expected(q, dimension).squared_cosine == pytest.approx(exact, rel=1e-12)
    gradients = generic(20_000, dimension)
    cosines = torch.cosine_similarity(simulate(sphere, q, gradients), gradients)
    assert_mean(cosines**2, exact)


def test_the_rough_formula_is_refuted_for_the_sphere():
    """q/(q + d − 1) belongs to Gaussian probes; the simulation can tell."""
    gradients = generic(20_000, 4)
    squares = torch.cosine_similarity(simulate(sphere, 4, gradients), gradients) ** 2
    assert (squares.mean() - 4 / 7) > 6 * squares.std() / len(squares) ** 0.5


def test_signs_read_out_by_the_probe_shrink_bounded_draws():
    """The inverse is needed with entries ±U[½, 1]: read out by u, the mean is 7/12 of the gradient."""
    gradient = generic(1, D)
    draws = simulate(lambda q, d, g: 2 * DIRECTIONS["spsa"](q, d, g)[:1], 4, gradient.expand(4000, D))
    assert_mean(draws, 7 / 12 * gradient[0])


def test_subspace_sees_the_projection_only():
    basis = torch.randn(5, D, generator=seeded(2))
    rows = torch.linalg.qr(basis.T.double())[0].T
    gradient = generic(1, D)[0]
    projected = rows.T @ (rows @ gradient)
    captured = float(projected.square().sum())
    estimates = simulate(subspace(basis), 3, gradient.expand(4000, D))
    assert_mean(estimates, projected)
    assert_mean((estimates - gradient).square().sum(1), 1 - captured + captured * 4 / 3)
    theory = expected_in_subspace(3, 5, captured)
    cosines = torch.cosine_similarity(estimates, gradient[None])
    assert_mean(cosines**2, theory.squared_cosine, theory.squared_cosine / 5**2)
    assert_mean(estimates.square().sum(1), theory.norm_ratio**2)


@pytest.mark.parametrize("known", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("q", [1, 4, D])
def test_remembering_is_exact_along_the_past_and_shrunk_elsewhere(q, known):
    gradient, other = torch.eye(D, dtype=torch.float64)[:2]
    previous = math.sqrt(known) * gradient + math.sqrt(1 - known) * other
    estimates = simulate(remembering(previous), q, gradient.expand(3000, D))
    # E[ĝ]: the component along `previous`, and of the rest (q − 1)/(d − 1).
    along = (previous @ gradient) * previous
    assert_mean(estimates, along + (q - 1) / (D - 1) * (gradient - along))
    share = known + (1 - known) * (q - 1) / (D - 1)
    assert_mean(torch.cosine_similarity(estimates, gradient.expand_as(estimates)) ** 2, share)
    assert_mean((estimates - gradient).square().sum(1), 1 - share)


def test_remembering_starts_with_a_haar_frame_and_refuses_too_many():
    probes, readouts = remembering(None)(4, D, seeded())
    assert torch.allclose(probes @ probes.T, torch.eye(4), atol=1e-6) and torch.equal(readouts, 4 * probes)
    cosines = torch.cosine_similarity(simulate(remembering(None), 4, generic(3000, D)), generic(3000, D))
    assert_mean(cosines**2, 4 / D)
    with pytest.raises(ValueError, match=f"{D} dimensions has at most {D} directions, got q={D + 1}"):
        remembering(None)(D + 1, D, seeded())


@pytest.mark.parametrize("mixing", [0.3, 1.0])
def test_guided_shrinks_what_the_past_does_not_hold(mixing):
    dimension, q = 32, 6
    past = torch.randn(3, dimension, generator=seeded(4))
    rows = torch.linalg.qr(past.T.double())[0].T
    gradient = generic(1, dimension)[0] + 0.5 * rows[0]
    largest = mixing / dimension + (1 - mixing) / 3
    image = mixing / dimension * gradient + (1 - mixing) / 3 * rows.T @ (rows @ gradient)
    estimates = simulate(guided(past, mixing), q, gradient.expand(6000, dimension))
    assert_mean(estimates, image / largest)
    bias = (image / largest - gradient).square().sum()
    noise = (gradient @ image + image @ image) / (largest**2 * q)
    assert_mean((estimates - gradient).square().sum(1), bias + noise)
    theory = expected_guided(q, past, gradient, mixing)
    assert_mean(estimates.square().sum(1) / gradient.square().sum(), theory.norm_ratio**2)
    cosines = torch.cosine_similarity(estimates, gradient[None])
    # Leading order in the number of directions of noise, which the past reduces to about λ⁻¹.
    assert_mean(cosines**2, theory.squared_cosine, theory.squared_cosine * largest / 2)


def test_guided_without_a_past_is_the_gaussian_family_at_length_one():
    gradient = generic(1, D)
    estimates = simulate(guided(None), 4, gradient.expand(4000, D))
    assert_mean(estimates, gradient[0])
    assert_mean((estimates - gradient).square().sum(1), (D + 1) / 4)
    probes, _ = guided(None)(4000, D, seeded())
    assert_mean(probes.square().sum(1), 1.0)


def test_families_that_learn_take_the_past_that_points_somewhere():
    past = torch.randn(3, 2, D // 2, generator=seeded(1))
    holed = torch.cat([past[:2], torch.zeros(1, 2, D // 2), past[2:], torch.zeros(1, 2, D // 2)])
    for name, alone in (("guided", guided(past.flatten(1))), ("remembering", remembering(past[-1]))):
        for draws in zip(alone(4, D, seeded()), family(name, holed)(4, D, seeded())):
            assert torch.equal(*draws)
        first = family(name, torch.zeros(1, D))(4, D, seeded())[0]
        assert torch.equal(first, family(name, None)(4, D, seeded())[0])
    assert family("sphere", past) is sphere


def test_noise_on_slopes_lowers_the_cosine_as_predicted():
    q, noise, dimension = 24, 2.0, 32
    gradients, generator, cosines = generic(3000, dimension), seeded(3), []
    for gradient in gradients:
        probes, readouts = sphere(q, dimension, generator)
        error = math.sqrt(noise / dimension) * torch.randn(q, generator=generator)
        estimate = (probes.double() @ gradient + error) @ readouts.double()
        cosines.append(torch.cosine_similarity(estimate, gradient, dim=0))
    theory = expected_with_noise(q, dimension, noise)
    assert_mean(torch.stack(cosines) ** 2, theory.squared_cosine, theory.squared_cosine / dimension)


@pytest.mark.parametrize("name", ["coordinate", "orthogonal"])
@pytest.mark.parametrize("frames", [1, 2])
def test_whole_frames_are_exact(name, frames):
    gradient = generic(1, D)[0]
    x = torch.zeros(D, dtype=torch.float64)
    estimate = estimate_gradient(linear(gradient), x, frames * D, directions=name, generator=seeded())
    torch.testing.assert_close(estimate.gradient, gradient, rtol=0, atol=1e-5)


def test_frames_are_orthonormal_and_uniform():
    probes, _ = DIRECTIONS["orthogonal"](D, D, seeded())
    torch.testing.assert_close(probes @ probes.T, torch.eye(D), atol=1e-5, rtol=0)
    # QR without the sign convention gives first directions with a negative first entry, always.
    firsts = torch.stack([DIRECTIONS["orthogonal"](2, 4, seeded(s))[0][0, 0] for s in range(400)])
    assert_mean(firsts, 0.0)


# ---- curvature, factors, ε -----------------------------------------------------


@pytest.fixture
def curved():
    root = torch.randn(D, D, generator=seeded(7), dtype=torch.float64)
    gradient = torch.randn(D, generator=seeded(8), dtype=torch.float64)
    return root @ root.T, gradient


@pytest.mark.parametrize("name", DIRECTIONS)
def test_two_sided_differences_are_exact_on_quadratics_and_forward_ones_off_by_epsilon(curved, name):
    hessian, gradient = curved
    loss, x = quadratic(hessian, gradient), torch.zeros(D, dtype=torch.float64)
    probes, readouts = (t.double() for t in DIRECTIONS[name](D, D, seeded(1)))
    without_curvature = (probes @ gradient) @ readouts / D
    term = 0.5 * ((probes @ hessian) * probes).sum(1) @ readouts / D
    for epsilon in (1e-1, 1e-3):
        options = dict(q=D, epsilon=epsilon, directions=name)
        forward = estimate_gradient(loss, x, **options, generator=seeded(1)).gradient
        both = estimate_gradient(loss, x, **options, differences="two-sided", generator=seeded(1)).gradient
        torch.testing.assert_close(both, without_curvature, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(forward, without_curvature + epsilon * term, rtol=1e-6, atol=1e-6)


def test_axes_pay_curvature_as_bias_and_the_sphere_does_not(curved):
    hessian, gradient = curved
    loss, x = quadratic(hessian, gradient), torch.zeros(D, dtype=torch.float64)
    axes = estimate_gradient(loss, x, D, 0.1, directions="coordinate", generator=seeded()).gradient
    torch.testing.assert_close(axes, gradient + 0.05 * hessian.diagonal(), rtol=1e-6, atol=1e-6)
    generator = seeded()
    estimates = [estimate_gradient(loss, x, 4, 0.1, generator=generator).gradient for _ in range(2000)]
    assert_mean(torch.stack(estimates), gradient)


@pytest.mark.parametrize("dimension, epsilon", [(512, 1 / 512), (1000, 1e-3), (8192, 1e-3)])
def test_the_rule_for_epsilon_and_the_released_factor(dimension, epsilon):
    assert default_epsilon(dimension) == epsilon
    gradient = torch.randn(dimension, generator=seeded(), dtype=torch.float64)
    x = torch.zeros(dimension, dtype=torch.float64)
    unbiased, released = (
        estimate_gradient(linear(gradient), x, 8, factor=factor, generator=seeded(1)) for factor in ("dimension", "released")
    )
    assert unbiased.epsilon == released.epsilon == epsilon
    ratio = released.gradient.norm() / unbiased.gradient.norm()
    assert float(ratio) == pytest.approx(min(1.0, 1000 / dimension), rel=1e-6)


# ---- the interface ---------------------------------------------------------------


@pytest.mark.parametrize("differences, queries, kept", [("forward", 9, (8,)), ("two-sided", 16, (2, 8))])
def test_cost_losses_and_base(differences, queries, kept):
    asked = []

    def loss(points):
        asked.append(len(points))
        return points.flatten(1).square().sum(1) + 3

    x = torch.randn(2, 4, generator=seeded())
    estimate = estimate_gradient(loss, x, 8, 1e-3, differences=differences, generator=seeded())
    assert estimate.queries == sum(asked) == queries
    assert estimate.losses.shape == kept and estimate.gradient.shape == x.shape
    assert estimate.base_loss == pytest.approx(float(x.square().sum()) + 3, abs=1e-5)


@pytest.mark.parametrize("differences", ["forward", "two-sided"])
@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_chunks_change_nothing(differences, chunk):
    x = torch.randn(3, 4, generator=seeded(), dtype=torch.float64)
    options = dict(q=12, differences=differences)

    def loss(points):
        return points.flatten(1).sin().sum(1)

    whole = estimate_gradient(loss, x, **options, generator=seeded())
    parts = estimate_gradient(loss, x, **options, generator=seeded(), chunk=chunk)
    assert torch.equal(whole.gradient, parts.gradient) and whole.base_loss == parts.base_loss


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_seed_decides_everything(name):
    x, loss = torch.zeros(D), linear(torch.ones(D))

    def gradient(seed):
        return estimate_gradient(loss, x, 5, directions=name, generator=seeded(seed)).gradient

    first = gradient(1)
    torch.rand(10)  # the global stream plays no part
    assert torch.equal(first, gradient(1)) and not torch.equal(first, gradient(2))


def test_given_directions_set_q_and_need_no_generator():
    x = torch.zeros(2, 3, dtype=torch.float64)
    gradient = torch.arange(6, dtype=torch.float64)
    estimate = estimate_gradient(linear(gradient), x, q=99, directions=torch.eye(6).view(6, 2, 3))
    torch.testing.assert_close(estimate.gradient, gradient.view(2, 3))
    assert estimate.queries == 7


def test_loss_and_gradient_stay_outside_autograd():
    weights = torch.ones(D, requires_grad=True)
    x = torch.zeros(D, requires_grad=True)
    estimate = estimate_gradient(lambda points: points @ weights, x, 4, generator=seeded())
    assert not estimate.gradient.requires_grad and not estimate.losses.requires_grad


WRONG = [
    (dict(q=0), "q, the number of directions.*got 0"),
    (dict(q=2.5), "whole number"),
    (dict(epsilon=0.0), "epsilon must be positive"),
    (dict(epsilon=-1e-3), "epsilon must be positive"),
    (dict(epsilon=float("nan")), "epsilon must be positive"),
    (dict(epsilon=float("inf")), "finite"),
    (dict(directions="spheer"), "choose from sphere"),
    (dict(differences="central"), "choose from forward"),
    (dict(factor="none"), "choose from dimension"),
    (dict(factor="released", directions="gaussian"), "unit probes"),
    (dict(directions=torch.ones(3, D + 1)), rf"directions must be \(q, {D}\)"),
    (dict(directions=torch.ones(0, D)), "directions must be"),
    (dict(directions=torch.zeros(3, D)), "finite and nonzero"),
    (dict(directions=torch.full((3, D), float("nan"))), "must be finite"),
    (dict(directions=remembering(torch.ones(3))), f"rows of 3 numbers, but the point has {D}"),
    (dict(x=torch.zeros(D, dtype=torch.int64)), "floating-point numbers, got 16 of torch.int64"),
    (dict(x=torch.zeros(0)), "got 0 of"),
    (dict(generator=None), "torch.Generator"),
    (dict(chunk=0), "chunk must be at least 1"),
    (dict(directions=subspace(torch.eye(3))), f"rows of 3 numbers, but the point has {D}"),
    (dict(directions=guided(torch.eye(3))), f"rows of 3 numbers, but the point has {D}"),
]


@pytest.mark.parametrize("options, message", WRONG)
def test_wrong_arguments_are_refused_before_any_query(options, message):
    def loss(points):
        raise AssertionError("a query was made")

    with pytest.raises(ValueError, match=message):
        estimate_gradient(loss, **(dict(x=torch.zeros(D), q=4, generator=seeded()) | options))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_losses_that_are_not_finite_are_reported(value):
    with pytest.raises(FloatingPointError, match="1 of 5 losses"):
        estimate_gradient(lambda points: torch.tensor([0.0, 1, value, 2, 3]), torch.zeros(D), 4, generator=seeded())


@pytest.mark.parametrize("loss", [lambda points: points, lambda points: points.sum()])
def test_losses_of_a_wrong_shape_are_reported(loss):
    with pytest.raises(ValueError, match=r"\(5, …\) points to \(5,\)"):
        estimate_gradient(loss, torch.zeros(D), 4, generator=seeded())


def test_subspaces_and_guides_are_checked():
    with pytest.raises(ValueError, match="not linearly independent"):
        subspace(torch.ones(2, D))
    with pytest.raises(ValueError, match="1 ≤ k ≤ d"):
        subspace(torch.ones(D))
    for kind in (subspace, guided):
        with pytest.raises(ValueError, match="not linearly independent"):
            kind(torch.zeros(1, D))
        with pytest.raises(ValueError, match="must be finite"):
            kind(torch.full((1, D), float("nan")))
    with pytest.raises(ValueError, match="mixing must lie in"):
        guided(torch.eye(D)[:2], mixing=0.0)


def test_principal_directions_find_the_plane_of_the_embeddings():
    plane = torch.linalg.qr(torch.randn(6, 2, generator=seeded()))[0].T
    embeddings = torch.randn(40, 2, generator=seeded(1)) @ plane + 1
    basis = principal_directions(embeddings, 2, length=3)
    assert basis.shape == (6, 18)
    torch.testing.assert_close(basis @ basis.T, torch.eye(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(basis[:2, :6].T @ basis[:2, :6], plane.T @ plane, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="1 to 6 principal directions, got 7"):
        principal_directions(embeddings, 7)
