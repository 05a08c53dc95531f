"""Whole answers on a prompt problem: the error of their local model, and descents that count what they ask."""

import pytest
import torch
import torch.nn.functional as F

from cbbt.gradients import answers
from cbbt.gradients.analysis import PromptProblem

NAMES = ("cat", "sailing boat", "car")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def problem(white_box, generator):
    features = F.normalize(torch.randn(12, white_box.embed_dim, generator=generator), dim=-1)
    return PromptProblem(white_box, features, torch.arange(12) % len(NAMES), NAMES, white_box.token_embeddings("a"))


def prompt_sets(problem) -> float:
    return problem.box.ledger.counts["class_prompts"] / len(NAMES)


def test_the_error_is_that_of_the_differences_for_short_steps_and_grows_faster_with_long_ones(problem):
    table = answers.local_model_error(problem, [4, 32], [0.001, 0.01, 0.3, 1.0], repeats=6)
    assert list(table) == ["q", "repeat", "length", "error"] and len(table) == 2 * 6 * 4
    first, second, third, fourth = table.groupby("length").error.mean()
    assert second / first == pytest.approx(10, rel=0.1)  # ε B / 2 for each direction, times the length
    assert fourth / third > 1.5 * (1.0 / 0.3)  # B ‖a‖² / 2 beside it
    few, many = table[table.length == 0.3].groupby("q").error.mean()
    assert many < 3 * few and table.error.between(0, 2).all()


@pytest.mark.parametrize("descent", ["linearised", "estimated"])
def test_descents_count_the_prompt_sets_that_they_ask(problem, descent):
    before = prompt_sets(problem)
    if descent == "linearised":
        states = list(answers.linearised_descent(problem, q=4, memory=8, steps=3, seed=1))
    else:
        states = list(answers.estimated_descent(problem, q=4, rate=0.02, steps=6, batch_size=5, seed=1, every=4))
    counts = [sets for sets, _ in states]
    assert counts == ([1, 8, 15, 22] if descent == "linearised" else [0, 20, 30])
    assert prompt_sets(problem) - before == counts[-1]
    assert torch.equal(states[0][1], problem.context) and not torch.equal(states[-1][1], problem.context)


def test_descents_go_down_and_the_judging_images_change_no_loss(problem):
    options = {"q": 4, "memories": (4, 16), "steps": 4, "estimate_q": 8, "estimate_steps": 10}
    table = answers.descents(problem, problem, [1, 2], **options)
    losses = table.groupby(["descent", "seed"], sort=False).loss
    assert len(losses) == 6 and (losses.last() < losses.first()).all()
    linearised = table[table.descent.str.startswith("linearised")]
    assert (linearised.groupby(["descent", "seed"]).loss.diff().dropna() <= 0).all()
    other = PromptProblem(problem.box, problem.features[:3], problem.labels[:3], NAMES, problem.context)
    again = answers.descents(problem, other, [1, 2], **options)
    assert again.loss.equals(table.loss) and not again.accuracy.equals(table.accuracy)
