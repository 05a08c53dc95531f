"""SharpZO: both stages against their formulas, the plan of losses, resume."""

import json

import numpy as np
import pytest
import torch

import cbbt
from cbbt.box.blackbox import BlackBox
from cbbt.box.ledger import BudgetExceeded, Ledger
from cbbt.learning.fitting import Session
from cbbt.methods.sharpzo import Plan, Settings, SharpZo, fit, keep_mask
from cbbt.runs.config import RunConfig

CPU = torch.device("cpu")
D, POPULATION = 6, 5
GENERATION, MASK = POPULATION + 2 * D, 2 * D
# Three generations, and two masks for 14 steps.
QUICK = {"numbers": D, "population": POPULATION, "losses": 3 * GENERATION + 2 * MASK + 28, "first": 0.5, "mask_every": 7}


def config(**settings) -> RunConfig:
    return RunConfig.from_dict({"dataset": "digits", "method": "sharpzo"} | QUICK | settings)


def fitted(loaded, support, settings: RunConfig, checkpoint=None):
    """The outcome of a fit with fresh ledgers, and its ledger."""
    box = BlackBox(loaded, CPU, Ledger(settings.budget))
    session = Session(judge=box.with_ledger(Ledger()), checkpoint=checkpoint, save_every=-1.0)
    return fit(box, support, settings, session), box.ledger


@pytest.fixture
def searcher(box, support):
    return lambda **settings: SharpZo(box, support, config(**settings))


# ---- the plan ------------------------------------------------------------------


def test_the_defaults_are_published_lengths():
    plan = Plan.of(Settings().losses, Settings())
    assert plan == Plan(200, 19800, 99) and plan.every == 200
    assert 200 * (40 + 1024) + 2 * 19800 + 99 * 1024 == Settings().losses


@pytest.mark.parametrize("losses, settings, expected", [
    (5000, {}, Plan(2, 412, 2)),  # 2,128 of stage 1, two masks, 412 steps
    (5000, {"first": 0.2}, Plan(1, 944, 2)),  # stage 1 has at least one generation
    (5000, {"first": 1.0}, Plan(4, 372, 0)),  # what is left pays for no mask and 200 steps
    (1064, {}, Plan(1, 0, 0)),
    (5000, {"released": True}, Plan(2, 1436, 0)),
])  # fmt: skip
def test_a_budget_is_shared_between_the_stages(losses, settings, expected):
    plan, s = Plan.of(losses, Settings(**settings)), Settings(**settings)
    assert plan == expected
    spent = plan.generations * 1064 + plan.masks * 2 * s.numbers + 2 * plan.steps
    assert losses - 2 < spent <= losses


def test_three_kinds_of_losses_are_counted(loaded, support):
    outcome, ledger = fitted(loaded, support, config())
    assert ledger.counts == {"loss_queries": QUICK["losses"], "class_prompts": 3 * QUICK["losses"], "images": 0}
    assert [row["step"] for row in outcome.history] == list(range(1, 18)) and outcome.learned == D
    kinds = ["candidate_losses", "coordinate_losses", "direction_losses"]
    counts = [[row[kind] for kind in kinds] for row in outcome.history]
    assert counts[2:5] == [[15, 36, 0], [15, 36 + 12, 2], [15, 36 + 12, 4]]  # the first mask comes with the first step
    assert counts[-1] == [15, 36 + 24, 28]
    assert [sum(row) for row in counts] == [row["loss_queries"] for row in outcome.history]
    json.dumps(outcome.history, allow_nan=False)


@pytest.mark.parametrize("grain, each", [("loss_queries", 1), ("class_prompts", 3)])
@pytest.mark.parametrize("losses", [GENERATION, 60, 101, 300])
def test_a_budget_is_spent_and_never_exceeded(loaded, support, grain, each, losses):
    _, ledger = fitted(loaded, support, config(**{f"max_{grain}": losses * each + each - 1}))
    assert losses - 2 < ledger.counts["loss_queries"] <= losses


def test_a_budget_below_one_generation_is_refused(loaded, support):
    with pytest.raises(BudgetExceeded, match="which costs 17 loss_queries, of which 16 are left"):
        fitted(loaded, support, config(max_loss_queries=GENERATION - 1))


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("stop_after", [1, 3, 4, 12])  # in stage 1, at its end, behind the first mask, behind the second
def test_a_resumed_search_equals_an_undisturbed_one(loaded, support, released, stop_after, tmp_path, killed_at):
    settings, path = config(released=released), tmp_path / "checkpoint.safetensors"
    calm, calm_ledger = fitted(loaded, support, settings)
    with killed_at(stop_after):
        fitted(loaded, support, settings, checkpoint=path)
    np.random.seed(stop_after), torch.manual_seed(stop_after)
    resumed, ledger = fitted(loaded, support, settings, checkpoint=path)
    assert calm.history == resumed.history and calm_ledger.counts == ledger.counts
    assert torch.equal(calm.last.text, resumed.last.text) and torch.equal(calm.best_val.text, resumed.best_val.text)


@pytest.mark.parametrize("settings, message", [
    ({"first": 1.2}, "first is a fraction and must be at most 1"),
    ({"kept": 0.0}, "kept must be positive"),
    ({"losses": GENERATION - 1}, "losses must be at least 17"),
    ({"radius": -1.0}, "radius must be at least 0"),
])  # fmt: skip
def test_wrong_options_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        config(**settings)


# ---- the stages ----------------------------------------------------------------


def test_differences_along_coordinates_give_the_true_gradient(white_box, support):
    method = SharpZo(white_box, support, config())
    method.w = torch.linspace(-0.5, 0.5, D)
    estimate = method.coordinate_gradient()
    with torch.enable_grad():
        w = method.w.clone().requires_grad_()
        loss = method.losses(w[None])[0]
        (true,) = torch.autograd.grad(loss, w)
    assert estimate.queries == 2 * D and estimate.base_loss == pytest.approx(loss.item(), abs=1e-3)
    assert torch.allclose(estimate.gradient, true, atol=2e-3 * true.norm().item())


def quadratic(z: torch.Tensor) -> torch.Tensor:
    return (torch.arange(1.0, D + 1) * (z - 1).square()).sum(dim=1)


@pytest.mark.parametrize("released, radius", [(False, 0.1), (True, 0.1 / POPULATION**0.5)])
def test_candidates_are_scored_uphill_of_where_they_stand(searcher, released, radius):
    method, seen = searcher(released=released), []
    method.losses = lambda z: seen.append(z) or quadratic(z)
    method.step(0, 10)
    gradient = -2 * torch.arange(1.0, D + 1)  # at 0, where the search starts
    told = torch.from_numpy(np.stack(method.evolution.asked)).float()
    assert torch.allclose(seen[-1] - told, (radius * gradient / gradient.norm()).expand(POPULATION, -1), atol=1e-5)
    assert torch.equal(method.evolution.history()[0], quadratic(seen[-1]).double())
    assert torch.equal(method.w, method.evolution.mean())


def test_stage_1_lowers_a_quadratic(searcher):
    method = searcher(losses=60 * GENERATION, first=1.0)
    method.losses = quadratic
    for index in range(60):
        method.step(index, 60)
    assert quadratic(method.w[None]).item() < 0.05 * quadratic(torch.zeros(1, D)).item()


def test_the_mask_keeps_the_highest_scores():
    w, gradient = torch.tensor([1.0, 1.0, 3.0, 0.0, 2.0, 0.1]), torch.tensor([4.0, -5.0, 0.1, 9.0, 3.0, 1.0])
    squares = gradient.square()
    score = w.square() * (squares - squares.mean()) / squares.std()
    mask = keep_mask(w, gradient, 0.5)
    assert mask.sum() == 3 and score[mask == 1].min() >= score[mask == 0].max()
    assert mask.tolist() == [0, 1, 0, 1, 0, 1]  # of the other three, squares below the mean count against large entries
    assert keep_mask(w, gradient, 1.0).all() and keep_mask(w, gradient, 0.01).sum() == 1
    assert keep_mask(w, torch.ones(6), 0.5).sum() == 3  # equal slopes: no score differs


def test_stage_2_steps_along_a_direction_on_the_mask(searcher):
    method, seen = searcher(), []
    method.w = torch.linspace(-0.5, 0.5, D)
    before = method.w.clone()
    method.losses = lambda z: seen.append(z) or quadratic(z)
    method.descend(0)
    up, down = seen[-1]
    assert method.mask.sum() == D // 2 and ((up != before) == method.mask.bool()).all()
    assert torch.allclose(up + down, 2 * before, atol=1e-6)
    slope = (quadratic(up[None]) - quadratic(down[None])) / 2e-3
    assert torch.allclose(method.w, before - 1e-3 * slope * (up - down) / 2e-3, atol=1e-4)
    mask = method.mask
    for done in range(1, 7):
        method.descend(done)
        assert method.mask is mask  # until step 7, the next mask's
    method.descend(7)
    assert method.mask is not mask


def test_the_released_code_sums_its_estimates(searcher):
    method, seen = searcher(released=True), []
    method.losses = lambda z: seen.append(z) or quadratic(z)
    method.step(0, 10)
    leftover, position = method.sum.clone(), [method.w.clone()]
    assert torch.allclose(leftover, -2 * torch.arange(1.0, D + 1), atol=2e-3)
    estimates = []
    for done in range(2):
        method.descend(done)
        up, down = seen[-1].double()
        direction = (up - down) / 2e-3
        estimates.append((quadratic(up[None]) - quadratic(down[None])) / 2e-3 * direction)
        position.append(method.w.clone())
    moves = [(second - first).double() / -1e-3 for first, second in zip(position, position[1:])]
    assert method.mask.all() and torch.allclose(moves[0], leftover + estimates[0], rtol=0.01, atol=0.1)
    assert torch.allclose(moves[1] - moves[0], estimates[1], rtol=0.01, atol=0.1)


def test_directions_of_the_released_code_are_means_of_a_population(searcher):
    lengths = []
    for released in (False, True):
        method, seen = searcher(released=released, mask_every=10_000), []
        method.losses = lambda z, seen=seen: seen.append(z) or quadratic(z)
        method.w = torch.ones(D)
        method.descend(0)
        lengths.append((seen[-1][0] - seen[-1][1]).norm())
    assert (lengths[0] / lengths[1]).item() == pytest.approx(POPULATION**0.5, rel=1e-3)


# ---- on a task -----------------------------------------------------------------


def test_it_learns_on_digits(one_thread):
    settings = {"method": "sharpzo", "max_loss_queries": 5000, "first": 0.2, "lr": 0.1}
    record = cbbt.run(RunConfig.from_dict({"dataset": "digits", "judge": "validation"} | settings))
    plain = cbbt.run(RunConfig("digits", "zero_shot", shots=0, judge="validation"))
    assert record["scores"]["validation_accuracy"] > plain["scores"]["validation_accuracy"] + 5
    assert record["queries"]["loss_queries"] == 5000
