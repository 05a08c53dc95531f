"""The collaborative loop on a tiny model: what it updates, counts, and resumes."""

import json
import math

import pytest
import torch

from cbbt.adapters import IdentityAdapter
from cbbt.box.blackbox import BlackBox, WhiteBox
from cbbt.box.ledger import BudgetExceeded, Ledger
from cbbt.gradients.directions import LEARNING, MEMORY
from cbbt.learning.fitting import Session, Support
from cbbt.learning.tuning import EstimatedGradient, ExactGradient, learning_rate, tune
from cbbt.methods import METHODS
from cbbt.runs.config import RunConfig
from tests.conftest import NAMES

CPU = torch.device("cpu")


def config(method: str, **settings) -> RunConfig:
    return RunConfig("digits", method, **({"q": 4, "epochs": 3, "batch_size": 5, "prompt_lr": 0.05} | settings))


def fit(loaded, support, method, checkpoint=None, observe=lambda classifier: {}, save_every=-1.0, budget=None, **settings):
    """Fit with fresh ledgers; returns (fitted, fit's counts, monitoring's counts)."""
    door = WhiteBox if METHODS[method].white_box else BlackBox
    box = door(loaded, CPU, Ledger({grain.removeprefix("max_"): limit for grain, limit in (budget or {}).items()}))
    judge = box.with_ledger(Ledger())
    session = Session(judge=judge, observe=observe, checkpoint=checkpoint, save_every=save_every)
    fitted = METHODS[method].fit(box, support, config(method, **settings), session)
    return fitted, box.ledger.counts, judge.ledger.counts


# The methods without settings of their own: those of the collaborative loop, and those that do not train.
PLAIN = [name for name in METHODS if METHODS[name].settings is None]
TRAINED = [name for name in PLAIN if name not in ("zero_shot", "tip_adapter")]


@pytest.mark.parametrize("method", PLAIN)
def test_every_method_returns_a_classifier(loaded, support, method):
    fitted, counts, _ = fit(loaded, support, method)
    logits = fitted.last.logits(support.val_features)
    assert logits.shape == (3, 3) and logits.isfinite().all()
    assert len(fitted.history) == (3 if method in TRAINED else 0)
    assert counts["images"] == 0  # features were given


@pytest.mark.parametrize("method", ["cbbt", "cbbt_prompt"])
def test_queries_equal_a_hand_count(loaded, support, method):
    fitted, counts, monitoring = fit(loaded, support, method)
    steps = 3 * (12 // 5)  # epochs × whole batches
    assert counts["loss_queries"] == steps * (4 + 1)
    assert counts["class_prompts"] == steps * (4 + 1) * 3
    assert fitted.history[-1]["step"] == steps and fitted.history[-1]["class_prompts"] == counts["class_prompts"]
    # each epoch's classifier, the last one, and the one best on validation
    assert monitoring["class_prompts"] == (3 + 1 + 1) * 3


def test_both_sides_learn_and_the_loss_falls(loaded, support):
    fitted, *_ = fit(loaded, support, "cbbt", epochs=25, q=32, adapter_lr=0.01)
    losses = [row["train_loss"] for row in fitted.history]
    assert losses[-1] < 0.7 * losses[0]
    start = BlackBox(loaded, CPU).token_embeddings("a")
    text = BlackBox(loaded, CPU).encode_prompts(start[None], NAMES)[0]
    assert not torch.allclose(fitted.last.text, text, atol=1e-3)


@pytest.mark.parametrize("directions", LEARNING)
def test_directions_that_learn_get_the_last_estimates(loaded, support, directions, monkeypatch):
    seen = []
    original = EstimatedGradient.__call__

    def call(self, *arguments):
        seen.append(arguments[-1])
        answer = original(self, *arguments)
        seen.append(answer[0])
        return answer

    monkeypatch.setattr(EstimatedGradient, "__call__", call)
    fit(loaded, support, "cbbt_prompt", directions=directions, epochs=6)
    pasts, estimates = seen[::2], seen[1::2]
    assert pasts[0] is None and len(pasts) == 12
    for step in range(1, 12):
        assert torch.equal(pasts[step], torch.stack(estimates[max(step - MEMORY, 0) : step]))


def test_estimated_gradient_is_close_to_the_exact_one(loaded, support):
    black, white = BlackBox(loaded, CPU), WhiteBox(loaded, CPU)
    context = black.token_embeddings("a")
    features, offsets = IdentityAdapter()(support.views[0])
    arguments = (context, features, offsets, support.labels)
    exact, exact_loss, exact_text = ExactGradient(white, NAMES, config("coop"))(*arguments, None, None)
    source = EstimatedGradient(black, NAMES, config("cbbt_prompt", q=32, directions="coordinate"))
    estimate, loss, text = source(*arguments, torch.Generator().manual_seed(0), None)
    # all coordinates once: exact up to the curvature over a step of 1/32
    assert torch.cosine_similarity(estimate.flatten(), exact.flatten(), dim=0) > 0.99
    assert loss == pytest.approx(exact_loss, rel=1e-5) and torch.allclose(text, exact_text, atol=1e-5)


def test_the_fit_never_reads_what_the_observer_returns(loaded, support):
    plain, *_ = fit(loaded, support, "cbbt")
    watched, *_ = fit(loaded, support, "cbbt", observe=lambda classifier: {"test_accuracy": 0.0})
    assert torch.equal(plain.last.text, watched.last.text)
    assert all(row["test_accuracy"] == 0.0 for row in watched.history)


@pytest.mark.parametrize("method, settings", [(name, {}) for name in TRAINED] + [("cbbt_prompt", {"directions": "guided"})])
@pytest.mark.parametrize("stop_after", [1, 4, 5])
def test_a_resumed_fit_equals_an_undisturbed_one(loaded, support, method, settings, stop_after, tmp_path, killed_at):
    undisturbed = fit(loaded, support, method, **settings)
    path = tmp_path / "checkpoint.safetensors"
    with killed_at(stop_after):
        fit(loaded, support, method, checkpoint=path, **settings)
    resumed = fit(loaded, support, method, checkpoint=path, **settings)
    assert torch.equal(undisturbed[0].last.text, resumed[0].last.text)
    assert undisturbed[0].history == resumed[0].history and undisturbed[0].best_epoch == resumed[0].best_epoch
    for first, second in ((undisturbed[0].last, resumed[0].last), (undisturbed[0].best_val, resumed[0].best_val)):
        assert torch.equal(first.logits(support.val_features), second.logits(support.val_features))
    assert undisturbed[1:] == resumed[1:]


def test_a_checkpoint_of_another_run_is_refused(loaded, support, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    fit(loaded, support, "cbbt", checkpoint=path)
    with pytest.raises(ValueError, match="belongs to run digits-mini-cbbt-16shot-seed1"):
        fit(loaded, support, "cbbt", checkpoint=path, q=5)


def test_the_best_epoch_is_the_earliest_best_on_validation(loaded, support):
    fitted, *_ = fit(loaded, support, "cbbt", epochs=6)
    accuracies = [row["val_accuracy"] for row in fitted.history]
    assert fitted.best_epoch == 1 + accuracies.index(max(accuracies))
    assert fitted.best_val.accuracy(support.val_features, support.val_labels) == max(accuracies)


def test_class_specific_contexts_are_tuned(loaded, support):
    fitted, counts, _ = fit(loaded, support, "cbbt_prompt", class_specific=True, context_length=2, context_init="random")
    assert fitted.last.text.shape == (3, 24) and counts["loss_queries"] == 30


def test_two_sided_differences_cost_twice(loaded, support):
    _, counts, _ = fit(loaded, support, "cbbt_prompt", differences="two-sided")
    assert counts["loss_queries"] == 6 * 8 and counts["class_prompts"] == 6 * (8 + 1) * 3


def test_schedule_is_a_warm_up_epoch_and_a_cosine():
    settings = config("cbbt", epochs=10)
    rates = [learning_rate(2e-3, epoch, settings) for epoch in range(10)]
    assert rates[:2] == [1e-5, 2e-3]
    assert rates[6] == pytest.approx(1e-3) and rates[9] == pytest.approx(1e-3 * (1 + math.cos(0.8 * math.pi)))


def test_nothing_to_tune_on_is_an_error(loaded, support):
    empty = Support(support.views[:, :0], support.labels[:0], support.val_features, support.val_labels, NAMES, "{}")
    with pytest.raises(ValueError, match="shots ≥ 1"):
        fit(loaded, empty, "cbbt")


def test_history_is_json(loaded, support):
    json.dumps(fit(loaded, support, "cbbt")[0].history, allow_nan=False)


def test_cbbt_plus_asks_a_twentieth(loaded, support):
    own = dict(q=None, prompt_lr=None, epochs=5, batch_size=4)  # None: the method's own
    _, plain, _ = fit(loaded, support, "cbbt", **own)
    _, plus, _ = fit(loaded, support, "cbbt_plus", **own)
    assert plain["class_prompts"] == 15 * 65 * 3 and plus["class_prompts"] == 5 * 8 * 3
    assert plus["class_prompts"] <= plain["class_prompts"] / 20


def test_scoring_on_the_support_sees_every_view(loaded, support):
    """With all coordinates asked, the estimate is the gradient of the loss over all views."""
    settings = config("cbbt_prompt", scoring="support", directions="coordinate", q=32, batch_size=12, epochs=1)
    box, white = BlackBox(loaded, CPU), WhiteBox(loaded, CPU)
    seen = []
    source = EstimatedGradient(box, NAMES, settings)
    session = Session(judge=box.with_ledger(Ledger()))
    start = box.token_embeddings("a")
    tune(box, support, settings, session, adapter=IdentityAdapter(), context=start,
         prompt_gradient=lambda *arguments: seen.append(source(*arguments)) or seen[-1])  # fmt: skip
    features, _ = IdentityAdapter()(support.views.flatten(0, 1))
    exact, _, _ = ExactGradient(white, NAMES, settings)(start, features, None, support.labels.repeat(2), None, None)
    assert torch.cosine_similarity(seen[0][0].flatten(), exact.flatten(), dim=0) > 0.99


@pytest.mark.parametrize("budget, steps", [({"max_loss_queries": 32}, 6), ({"max_class_prompts": 50}, 3)])
def test_a_budget_decides_the_length_and_is_never_exceeded(loaded, support, budget, steps):
    """Five loss queries and fifteen class prompts a step; two steps an epoch, the last one cut short."""
    for method in ("cbbt", "cbbt_prompt"):
        fitted, counts, _ = fit(loaded, support, method, budget=budget, **budget)
        assert counts["loss_queries"] == 5 * steps and counts["class_prompts"] == 15 * steps
        assert [row["step"] for row in fitted.history] == [step for step in (2, 4, 6) if step <= steps] + [steps] * (steps % 2)


@pytest.mark.parametrize("method", ["cbbt", "cbbt_prompt"])
def test_a_budget_below_one_step_is_refused(loaded, support, method):
    with pytest.raises(BudgetExceeded, match="costs 5 loss_queries, of which 4 are left"):
        fit(loaded, support, method, budget={"max_loss_queries": 4}, max_loss_queries=4)


def test_a_budget_of_what_a_method_does_not_ask_changes_nothing(loaded, support):
    free, *_ = fit(loaded, support, "adapter")
    held, counts, _ = fit(loaded, support, "adapter", budget={"max_loss_queries": 1}, max_loss_queries=1)
    assert counts["loss_queries"] == 0
    assert torch.equal(free.last.logits(support.val_features), held.last.logits(support.val_features))


def test_prompt_steps_in_between_stretch_a_budget(loaded, support):
    fitted, counts, _ = fit(loaded, support, "cbbt", prompt_every=3, budget={"max_loss_queries": 10}, max_loss_queries=10)
    assert counts["loss_queries"] == 10 and fitted.history[-1]["step"] == 6


def test_what_is_learned_is_counted(loaded, support):
    context, adapter = 32, 2 * 24 * 6
    for method, expected in (("cbbt_prompt", context), ("adapter", adapter), ("cbbt", context + adapter), ("zero_shot", 0)):
        assert fit(loaded, support, method)[0].learned == expected
