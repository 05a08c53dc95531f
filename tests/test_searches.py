"""The searches: budgets, resume, and what each method's paper states."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.linalg import hadamard

import cbbt
from cbbt.box.blackbox import BlackBox
from cbbt.box.ledger import BudgetExceeded, Ledger
from cbbt.learning.fitting import Session
from cbbt.methods import METHODS, bbt, bpt_vlm, craft, zip_prompt
from cbbt.methods.parts.evolution import Evolution
from cbbt.methods.parts.spsa import Gains
from cbbt.runs.config import RunConfig
from cbbt.seeding import generator_for
from tests.conftest import NAMES

CPU = torch.device("cpu")
EVOLUTION = {"numbers": 6, "population": 5, "evaluations": 30}
QUICK = {
    "zip": {"tokens": 2, "intrinsic": 8, "rank": 2, "averages": 2, "steps": 6, "batch": 5},
    "bbt": EVOLUTION,
    "bpt_vlm_text": EVOLUTION | {"tokens": 2},
    "craft": EVOLUTION | {"hidden": 4, "batch": 5},
}
# Loss queries and class prompts of a step, and what is asked before the first.
COST = {"zip": (4, 12), "bbt": (5, 15), "bpt_vlm_text": (5, 15), "craft": (5, 18)}


def config(method: str, **settings) -> RunConfig:
    return RunConfig.from_dict({"dataset": "digits", "method": method} | QUICK[method] | settings)


def fit(loaded, support, settings: RunConfig, checkpoint=None, save_every=-1.0):
    """Fit with fresh ledgers; returns (fitted, ledger of the fit)."""
    box = BlackBox(loaded, CPU, Ledger(settings.budget))
    session = Session(judge=box.with_ledger(Ledger()), checkpoint=checkpoint, save_every=save_every)
    return METHODS[settings.method].fit(box, support, settings, session), box.ledger


@pytest.mark.parametrize("method", QUICK)
def test_a_search_asks_what_it_says(loaded, support, method):
    fitted, ledger = fit(loaded, support, config(method))
    losses, prompts = COST[method]
    assert ledger.counts == {"loss_queries": 6 * losses, "class_prompts": 6 * prompts, "images": 0}
    assert [row["step"] for row in fitted.history] == [1, 2, 3, 4, 5, 6]
    assert [row["loss_queries"] for row in fitted.history] == [losses * step for step in range(1, 7)]
    assert fitted.learned > 0 and fitted.last.logits(support.val_features).isfinite().all()
    json.dumps(fitted.history, allow_nan=False)


@pytest.mark.parametrize("method", QUICK)
@pytest.mark.parametrize("grain", ["loss_queries", "class_prompts"])
def test_a_budget_is_spent_and_never_exceeded(loaded, support, method, grain):
    """As many steps as it pays for, be that fewer than by itself or more."""
    cost = dict(zip(("loss_queries", "class_prompts"), COST[method]))[grain]
    for steps in (2, 8):
        fitted, ledger = fit(loaded, support, config(method, **{f"max_{grain}": steps * cost + cost - 1}))
        assert ledger.counts[grain] == steps * cost and fitted.history[-1]["step"] == steps


@pytest.mark.parametrize("method, grain", [("bbt", "loss_queries"), ("zip", "class_prompts")])
def test_a_budget_below_one_step_is_refused(loaded, support, method, grain):
    cost = dict(zip(("loss_queries", "class_prompts"), COST[method]))[grain]
    with pytest.raises(
        BudgetExceeded, match=f"does not allow one step, which costs {cost} {grain}, of which {cost - 1} are left"
    ):
        fit(loaded, support, config(method, **{f"max_{grain}": cost - 1}))


@pytest.mark.parametrize("method", QUICK)
@pytest.mark.parametrize("stop_after", [1, 3, 6])
def test_a_resumed_search_equals_an_undisturbed_one(loaded, support, method, stop_after, tmp_path, killed_at):
    settings, path = config(method), tmp_path / "checkpoint.safetensors"
    calm, calm_ledger = fit(loaded, support, settings)
    with killed_at(stop_after):
        fit(loaded, support, settings, checkpoint=path)
    np.random.seed(stop_after), torch.manual_seed(stop_after)  # global streams have no part in it
    resumed, ledger = fit(loaded, support, settings, checkpoint=path)
    assert calm.history == resumed.history and calm.best_epoch == resumed.best_epoch
    assert calm_ledger.counts == ledger.counts
    for first, second in ((calm.last, resumed.last), (calm.best_val, resumed.best_val)):
        assert torch.equal(first.logits(support.val_features), second.logits(support.val_features))


def test_a_checkpoint_of_another_run_is_refused(loaded, support, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    fit(loaded, support, config("bbt"), checkpoint=path)
    with pytest.raises(ValueError, match="belongs to run digits-mini-bbt"):
        fit(loaded, support, config("bbt", sigma=0.5), checkpoint=path)


@pytest.mark.parametrize("method", QUICK)
def test_searches_lower_the_loss_of_the_support(loaded, support, method):
    longer = {"evaluations": 200} if method != "zip" else {"steps": 60, "a": 0.3}
    fitted, _ = fit(loaded, support, config(method, **longer))
    losses = [row["train_loss"] for row in fitted.history]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


@pytest.mark.parametrize("settings, error, message", [
    ({"method": "bbt", "popsize": 3}, ValueError, "unknown setting 'popsize'; nearest: .*valid: dataset"),
    ({"method": "cbbt", "options": {"rank": 3}}, ValueError, "'cbbt' has no option 'rank'; nearest: none"),
    ({"method": "zip", "rank": 2.5}, TypeError, "rank must be int, got 2.5"),
    ({"method": "zip", "intrinsic": 3}, ValueError, "intrinsic must be at least 8"),
    ({"method": "bbt", "population": 1}, ValueError, "population must be at least 2"),
    ({"method": "bbt", "sigma": 0}, ValueError, "sigma must be positive"),
    ({"method": "craft", "weight": -1}, ValueError, "weight must be at least 0"),
    ({"method": "bbt", "max_images": 0}, ValueError, "max_images must be at least 1"),
    ({"method": "bbt", "max_loss_queries": 1.5}, TypeError, "max_loss_queries must be int"),
])  # fmt: skip
def test_wrong_options_are_named(settings, error, message):
    with pytest.raises(error, match=message):
        RunConfig.from_dict({"dataset": "digits"} | settings)


def test_options_are_part_of_the_name_and_come_back():
    plain, other = RunConfig("digits", "zip"), RunConfig.from_dict({"dataset": "digits", "method": "zip", "rank": 4})
    assert plain.run_id == RunConfig("digits", "zip", options={"rank": 5}).run_id != other.run_id
    assert RunConfig.from_dict(json.loads(json.dumps(vars(other)))) == other and other.settings.rank == 4


# ---- ZIP -----------------------------------------------------------------------


def test_zip_has_417_numbers_and_starts_at_its_initial_context(loaded, support):
    box = BlackBox(loaded, CPU)
    method = zip_prompt.Zip(box, support, RunConfig("digits", "zip"))
    assert method.x.shape == (417,) and torch.equal(method.contexts(method.x[None])[0], method.start)
    moved = method.contexts((method.x + 0.1)[None])[0] - method.start
    assert moved.shape == (8, 32) and torch.linalg.matrix_rank(moved) > 1


def test_zip_cuts_the_estimate_to_the_root_of_its_size():
    long, short = torch.full((417,), 3.0), torch.full((417,), 0.5)
    assert zip_prompt.clipped(long).norm().item() == pytest.approx(417**0.5)
    assert torch.equal(zip_prompt.clipped(short), short) and not zip_prompt.clipped(torch.zeros(417)).any()


def test_zip_moves_by_its_published_step(loaded, support):
    """x ← x − a/(k+1)^0.4 · clip(ĝ) from losses at x ± c/k^0.1 · Δ."""
    method = zip_prompt.Zip(BlackBox(loaded, CPU), support, config("zip"))
    before, seen = method.x.clone(), []
    method.contexts = lambda points, contexts=method.contexts: seen.append(points) or contexts(points)
    method.step(1, 6)
    points = seen[0].view(2, 2, -1)  # up and down, two averages
    perturbations = (points[0] - before) / (0.01 / 2**0.1)
    assert torch.allclose(points[0] + points[1], 2 * before.expand(2, -1), atol=1e-6)
    assert (perturbations.abs() > 0.499).all() and (perturbations.abs() < 1.001).all()
    step = (before - method.x) * 3**0.4 / 0.01
    assert step.norm().item() <= before.numel() ** 0.5 * (1 + 1e-4)


def test_fastfood_is_the_chain_of_its_factors():
    draw = generator_for(1, "fastfood")
    matrix = zip_prompt.fastfood(5, 12, draw)
    again = generator_for(1, "fastfood")
    signs = torch.randint(0, 2, (16,), generator=again) * 2.0 - 1.0
    order, normal = torch.randperm(16, generator=again), torch.randn(16, generator=again)
    x, transform = torch.randn(5), torch.from_numpy(hadamard(16)).float()
    padded = torch.cat([x, torch.zeros(11)])
    chain = transform @ (normal * (transform @ (signs * padded))[order]) / (12 * normal.square().sum()).sqrt()
    assert matrix.shape == (12, 5) and torch.allclose(matrix @ x, chain[:12], atol=1e-5)


@pytest.mark.parametrize("width", [512, 640])
def test_fastfood_keeps_lengths_in_the_mean(width):
    draw = generator_for(2, "fastfood")
    ratios = torch.stack([zip_prompt.fastfood(62, width, draw).square().sum() / 62 for _ in range(50)])
    assert ratios.mean().item() == pytest.approx(1.0, abs=4 * ratios.std().item() / 50**0.5 + 1e-3)


def test_gains_fall_as_published():
    gains = Gains(0.01, 0.02)
    assert gains.rate(1) == 0.01 / 2**0.4 and gains.size(1) == 0.02 and gains.size(32) == pytest.approx(0.02 / 32**0.1)


# ---- evolution -----------------------------------------------------------------


def quadratic(z: torch.Tensor) -> torch.Tensor:
    return (z - 1).square().sum(dim=1)


@pytest.mark.parametrize("seed", [1, 2, 2**31])
def test_a_strategy_depends_on_its_seed_alone(seed):
    """For every seed: pycma itself reads 0 as the clock, and draws from numpy's global stream."""
    runs = []
    for noise in (3, 4):
        np.random.seed(noise)
        before = np.random.get_state()[1].copy()
        evolution = Evolution(4, 0.5, 8, 0.0, seed)
        for _ in range(60):
            evolution.tell(quadratic(evolution.ask()))
        assert (np.random.get_state()[1] == before).all()
        runs.append(evolution.history())
    assert torch.equal(*runs) and runs[0][-1].min() < 1e-3 * runs[0][0].min()


def test_bounds_hold():
    evolution = Evolution(3, 2.0, 8, 0.3, 1)
    for _ in range(10):
        candidates = evolution.ask()
        assert candidates.abs().max() <= 0.3 + 1e-6
        evolution.tell(quadratic(candidates))


def test_losses_that_are_not_finite_are_refused():
    evolution = Evolution(3, 1.0, 4, 0.0, 1)
    evolution.ask()
    with pytest.raises(FloatingPointError, match="1 of 4 losses"):
        evolution.tell(torch.tensor([0.0, 1.0, torch.nan, 2.0]))


def test_bbt_deploys_the_lowest_loss_it_ever_saw(loaded, support):
    box = BlackBox(loaded, CPU)
    method = bbt.Bbt(box, support, config("bbt", evaluations=100))
    for index in range(20):
        method.step(index, 20)
    text = method.classifier(box, method.parameters()).text
    raw, labels = support.whole()
    loss = F.cross_entropy(box.logit_scale * F.normalize(raw, dim=-1) @ text.T, labels).item()
    assert loss == pytest.approx(method.evolution.history().min().item(), abs=1e-5)


def test_candidates_vary_as_token_embeddings_do(loaded, support):
    box = BlackBox(loaded, CPU)
    method = bbt.Bbt(box, support, config("bbt", numbers=400))
    spread = (method.contexts(torch.randn(200, 400)) - method.start).std().item()
    words = torch.cat([box.token_embeddings(f"a photo of a {name}.") for name in NAMES])
    assert spread == pytest.approx(words.std().item(), rel=0.05)


# ---- CraFT ---------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_heads_gradient_is_that_of_its_loss(loaded, support, weight):
    """∂/∂bias of CE(refined) + w KL(p ‖ refined) is the mean of softmax(refined) − onehot + w (softmax(refined) − p)."""
    method = craft.Craft(BlackBox(loaded, CPU), support, config("craft", batch=100))
    text = method.classifier(method.box, method.parameters()).text
    logits = method.box.logit_scale * F.normalize(support.views[0], dim=-1) @ text.T
    refined, plain = method.head(logits).detach().softmax(1), logits.softmax(1)
    expected = (refined - F.one_hot(support.labels, 3) + weight * (refined - plain)).mean(0)
    method.train_head(text, 0, weight)
    assert torch.allclose(method.head.layers[2].bias.grad, expected, atol=1e-5)


def test_the_fitness_holds_the_prompt_to_the_head(loaded, support):
    method = craft.Craft(BlackBox(loaded, CPU), support, config("craft", weight=0.5))
    logits = torch.randn(12, 3)
    refined, plain = method.head(logits).detach().softmax(1), logits.softmax(1)
    expected = F.cross_entropy(logits, support.labels) + 0.5 * (refined * (refined / plain).log()).sum(1).mean()
    assert method.fitness(logits).item() == pytest.approx(expected.item(), abs=1e-5)


def test_the_heads_term_is_dropped_after_its_part_of_the_search(loaded, support):
    method, weights = craft.Craft(BlackBox(loaded, CPU), support, config("craft", consistent_part=4)), []
    method.train_head = lambda text, index, weight: weights.append(weight) or 0.0
    for index in range(8):
        method.step(index, 8)
    assert weights == [0.1] * 2 + [0.0] * 6


# ---- BPT-VLM -------------------------------------------------------------------


def both_sides(**settings) -> RunConfig:
    fields = {"dataset": "digits", "method": "bpt_vlm", "image_tokens": 3, "image_numbers": 4}
    return RunConfig.from_dict(QUICK["bpt_vlm_text"] | fields | settings)


def test_image_tokens_cost_every_candidate_the_whole_support(loaded, pictured):
    fitted, ledger = fit(loaded, pictured, both_sides())
    assert ledger.counts == {"loss_queries": 30, "class_prompts": 90, "images": 30 * 12}
    assert fitted.learned == 6 + 4
    fitted, ledger = fit(loaded, pictured, both_sides(max_images=2 * 5 * 12 + 1))
    assert ledger.counts["images"] == 2 * 5 * 12 and fitted.history[-1]["step"] == 2


def test_both_prompts_are_deployed(loaded, pictured):
    """The loss of the deployed classifier, its images seen through its tokens, is the lowest that was told."""
    box = BlackBox(loaded, CPU)
    method = bpt_vlm.Bpt(box, pictured, both_sides())
    for index in range(6):
        method.step(index, 6)
    classifier = method.classifier(box, method.parameters())
    raw = torch.cat([classifier.image_prompt(box, batch) for batch in pictured.pixels.batches()])
    loss = F.cross_entropy(classifier.logits(raw), pictured.labels).item()
    assert loss == pytest.approx(method.evolution.history().min().item(), abs=1e-5)
    assert not torch.allclose(raw, pictured.views[0], atol=1e-4)
    assert classifier.accuracy_on(pictured.val, box) == pytest.approx(
        classifier.accuracy(classifier.image_prompt(box, pictured.val_pixels[range(3)]), pictured.val_labels)
    )


def test_the_text_side_is_the_published_search_without_image_tokens():
    both, text = (RunConfig("digits", method).options for method in ("bpt_vlm", "bpt_vlm_text"))
    assert both["image_tokens"] == 5 and text == both | {"image_tokens": 0}


def test_a_key_says_whether_there_are_image_tokens():
    for method, number in (("bpt_vlm", 0), ("bpt_vlm_text", 5)):
        with pytest.raises(ValueError, match=f"bpt_vlm needs image tokens, bpt_vlm_text has none, got image_tokens={number}"):
            RunConfig("digits", method, options={"image_tokens": number})


def test_a_box_without_image_tokens_is_refused():
    with pytest.raises(ValueError, match="'bpt_vlm' needs pixels, image tokens, .*the box mini takes .* and no image tokens$"):
        cbbt.run(RunConfig.from_dict({"dataset": "digits", "method": "bpt_vlm", "shots": 1}))
