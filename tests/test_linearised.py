"""The local model of a box's answers: exact where it should be, off by what its docstring says, and a descent that asks."""

import pytest
import torch
import torch.nn.functional as F

from cbbt.gradients.linearised import CANDIDATES, LinearisedAnswers
from cbbt.seeding import generator_for


class Box:
    """Answers of a function of x, one for each row, and a count of the questions."""

    def __init__(self, function):
        self.function, self.asked = function, 0

    def __call__(self, points):
        self.asked += len(points)
        return torch.stack([self.function(point) for point in points])


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(index=0):
    return generator_for(0, "directions", index)


def linear(d=12, seed=1):
    weight = draw(3, 5, d, seed=seed)
    return lambda x: weight @ x.flatten() + 1.0


def test_the_model_of_a_linear_function_is_exact():
    answers = LinearisedAnswers(Box(linear()), draw(3, 4), radius=1.0, unit=False)
    answers.explore(12, generator())
    steps = draw(12, seed=3)
    there = linear()(answers.point + (steps @ answers.directions).reshape(3, 4))
    assert torch.allclose(answers.predicted(steps), there, atol=1e-9)


def test_directions_are_orthonormal_also_after_many_explorations():
    answers = LinearisedAnswers(Box(linear(40)), draw(40), radius=1.0, unit=False, memory=24)
    for index in range(6):
        answers.explore(8, generator(index))
        gram = answers.directions @ answers.directions.T
        assert torch.allclose(gram, torch.eye(len(gram), dtype=gram.dtype), atol=1e-12)
    assert len(answers.directions) == 24 and len(answers.slopes) == 24


def test_a_frame_holds_no_more_directions_than_there_are_dimensions():
    box = Box(linear(6))
    answers = LinearisedAnswers(box, draw(6), radius=1.0, unit=False, memory=64)
    answers.explore(10, generator())
    assert len(answers.directions) == 6 and box.asked == 1 + 6
    answers.explore(4, generator(1))
    assert len(answers.directions) == 6


def test_the_error_on_a_quadratic_stays_within_the_bound_and_falls_with_its_parts():
    hessian = draw(8, 8, seed=5)
    hessian = hessian + hessian.T
    slope, bound = draw(8, seed=6), torch.linalg.matrix_norm(hessian, 2).item()

    def quadratic(x):
        return (slope @ x + 0.5 * x @ hessian @ x)[None]

    def error(epsilon, length):
        answers = LinearisedAnswers(Box(quadratic), draw(8, seed=7), radius=1.0, unit=False, epsilon=epsilon)
        answers.explore(8, generator())
        steps = F.normalize(draw(8, seed=8), dim=0) * length
        there = quadratic(answers.point + steps @ answers.directions)
        worst = bound * length**2 / 2 + 8**0.5 * length * epsilon * bound / 2
        return (answers.predicted(steps) - there).abs().item(), worst

    errors = [error(epsilon, length) for epsilon, length in ((0.1, 1.0), (0.1, 0.1), (0.01, 0.1), (1e-4, 0.01))]
    assert all(found <= worst for found, worst in errors)
    assert errors[-1][0] < 1e-3 * errors[0][0]


def test_features_are_predicted_with_unit_norm_and_to_first_order():
    weight = draw(4, 16, 10, seed=2)

    def features(x):
        return F.normalize(weight @ x, dim=-1)

    answers = LinearisedAnswers(Box(features), draw(10, seed=4), radius=1.0, epsilon=1e-6)
    answers.explore(10, generator())
    direction = F.normalize(draw(10, seed=9), dim=0)
    errors = []
    for length in (1e-2, 1e-3):
        predicted = answers.predicted(length * direction)
        assert torch.allclose(predicted.norm(dim=-1), torch.ones(4, dtype=predicted.dtype))
        errors.append((predicted - features(answers.point + length * direction @ answers.directions)).norm().item())
    assert errors[1] < errors[0] / 50  # a tenth of the step, a hundredth of the error


def test_a_move_corrects_the_slopes_so_that_they_tell_what_was_seen():
    """Broyden's condition: the corrected slopes give the new answer from the old one."""

    def curved(x):
        return torch.stack([x.square().sum(), (x[:3] ** 3).sum()])

    answers = LinearisedAnswers(Box(curved), draw(6, seed=1), radius=0.3, unit=False)
    answers.explore(4, generator())
    point, answer = answers.point, answers.answer
    before = answers.slopes
    answers.move(lambda y: y.square().sum())
    step = answers.directions @ (answers.point - point)
    assert step.norm() > 0
    assert torch.allclose(answer + torch.tensordot(step, answers.slopes, dims=1), answers.answer, atol=1e-9)
    across = torch.linalg.svd(step[None])[2][1:]  # what the move did not see stays as it was
    assert torch.allclose(torch.tensordot(across, answers.slopes, dims=1), torch.tensordot(across, before, dims=1), atol=1e-9)


def test_no_move_goes_up_and_a_bad_one_is_not_made():
    """A loss with noise in it: where no candidate is better, the point stays and the radius falls."""
    answers = LinearisedAnswers(Box(lambda x: x.square().sum()[None]), torch.zeros(4), radius=1.0, unit=False)
    answers.explore(4, generator())
    assert answers.move(lambda y: y.sum()) == 0.0
    assert torch.equal(answers.point, torch.zeros(4)) and answers.radius < 1.0


def test_least_squares_is_solved_in_one_exploration_and_few_moves():
    target = draw(3, 5, seed=11)
    box = Box(linear())
    answers = LinearisedAnswers(box, draw(12, seed=12), radius=0.01, unit=False)
    answers.explore(12, generator())
    losses = [answers.move(lambda y: (y - target).square().mean()) for _ in range(12)]
    weight = torch.stack([(linear()(axis) - 1.0).flatten() for axis in torch.eye(12, dtype=torch.float64)], dim=1)
    rest = (target - 1.0).flatten()
    rest = rest - weight @ torch.linalg.lstsq(weight, rest[:, None]).solution[:, 0]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(rest.square().mean().item(), rel=1e-3)
    assert box.asked == 1 + 12 + 12 * CANDIDATES


def test_the_scale_of_steps_is_found_from_far_too_small_and_too_large_a_start():
    def run(radius):
        answers = LinearisedAnswers(Box(linear()), draw(12, seed=12), radius=radius, unit=False)
        for index in range(15):
            answers.explore(4, generator(index))
            loss = answers.move(lambda y: (y - 2.0).square().mean())
        return loss

    assert run(1e-3) == pytest.approx(run(1.0), rel=0.05)
    assert run(1e3) == pytest.approx(run(1.0), rel=0.05)


def test_a_restored_state_goes_on_to_the_last_bit():
    def go(answers, begin, end):
        for index in range(begin, end):
            answers.explore(3, generator(index))
            answers.move(lambda y: (y - 2.0).square().mean())
        return answers

    start = draw(12, seed=12)
    whole = go(LinearisedAnswers(Box(linear()), start, radius=0.1, unit=False, memory=6), 0, 6)
    half = go(LinearisedAnswers(Box(linear()), start, radius=0.1, unit=False, memory=6), 0, 3)
    again = LinearisedAnswers(Box(linear()), start, radius=0.1, unit=False, memory=6)
    again.restore({name: tensor.clone() for name, tensor in half.state().items()})
    go(again, 3, 6)
    assert all(torch.equal(tensor, again.state()[name]) for name, tensor in whole.state().items())


@pytest.mark.parametrize("wrong", [{"radius": 0.0}, {"radius": float("nan")}, {"epsilon": -1.0}, {"memory": 0}])
def test_scales_that_are_not_positive_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be positive"):
        LinearisedAnswers(Box(linear()), draw(12), **{"radius": 1.0} | wrong)


def test_logits_of_the_shots_serve_as_well_as_features(box):
    """A box that gives logits alone: the same answers, times τ and the images, and nearly the same prompt."""
    names, images = ["circle", "star", "cross"], F.normalize(draw(6, box.embed_dim).float(), dim=-1)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    start = box.token_embeddings("a photo")

    def features(contexts):
        return box.encode_prompts(contexts, names)

    def logits(contexts):
        return box.logits(features(contexts), images)

    def descend(ask, unit, loss):
        answers = LinearisedAnswers(ask, start, radius=0.4, unit=unit)
        for index in range(4):
            answers.explore(8, generator(index))
            value = answers.move(loss)
        return value

    begin = box.losses(features(start[None]), images, labels).item()
    by_features = descend(features, True, lambda text: F.cross_entropy(box.logit_scale * images @ text.T, labels))
    by_logits = descend(logits, False, lambda answer: F.cross_entropy(answer, labels))
    assert by_features < begin and by_logits < begin
    assert by_logits - begin == pytest.approx(by_features - begin, rel=0.3)
