"""The collaborative loop on a tiny model: what it updates, counts, and resumes."""

import dataclasses
import json
import math
import random
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from cbbt.adapters import IdentityAdapter, ResidualAdapter
from cbbt.box.blackbox import BlackBox, WhiteBox
from cbbt.box.ledger import BudgetExceeded, Ledger
from cbbt.gradients.directions import LEARNING, MEMORY
from cbbt.learning.fitting import Session, Support
from cbbt.learning.tuning import EstimatedGradient, ExactGradient, _Loop, learning_rate, prompt_steps, tune
from cbbt.methods import METHODS
from cbbt.methods.parts.start import residual_adapter, start_context
from cbbt.runs.config import RunConfig
from cbbt.seeding import batch_rows, generator_for
from tests.conftest import NAMES

CPU = torch.device("cpu")


def config(method: str, **settings) -> RunConfig:
    """Twelve shots in batches of five: two steps an epoch, six in all."""
    quick = {"q": 4, "epochs": 3, "batch_size": 5, "prompt_lr": 0.05, "min_epoch_steps": 1}
    return RunConfig("digits", method, **quick | settings)


def fit(loaded, support, method, checkpoint=None, observe=lambda classifier: {}, save_every=-1.0, **settings):
    """Fit with fresh ledgers, within the budget of the settings; returns (fitted, fit's counts, monitoring's counts)."""
    door, settings = WhiteBox if METHODS[method].white_box else BlackBox, config(method, **settings)
    box = door(loaded, CPU, Ledger(settings.budget))
    judge = box.with_ledger(Ledger())
    session = Session(judge=judge, observe=observe, checkpoint=checkpoint, save_every=save_every)
    fitted = METHODS[method].fit(box, support, settings, session)
    return fitted, box.ledger.counts, judge.ledger.counts


def same(first, second, support) -> bool:
    """Whether two fits have the same classifiers and the same history."""
    pairs = (first.last, second.last), (first.best_val, second.best_val)
    logits = [[one.logits(support.val_features) for one in pair] for pair in pairs]
    return all(torch.equal(*pair) for pair in logits) and first.history == second.history


@pytest.fixture
def moves(monkeypatch):
    """The steps in which prompt and adapter move, of all fits since the last `clear()`, beside their learning rates."""
    seen = SimpleNamespace(prompt=[], adapter=[])
    seen.clear = lambda: (seen.prompt.clear(), seen.adapter.clear())
    for side in ("prompt", "adapter"):
        original = getattr(_Loop, f"update_{side}")

        def update(self, *arguments, _original=original, _side=side):
            _original(self, *arguments)
            getattr(seen, _side).append((self.step, getattr(self, f"{_side}_optimizer").param_groups[0]["lr"]))

        monkeypatch.setattr(_Loop, f"update_{side}", update)
    return seen


def steps_of(moves) -> list[int]:
    return [step for step, _ in moves]


# The methods without settings of their own: those of the collaborative loop, and those that do not train.
PLAIN = [name for name in METHODS if METHODS[name].settings is None]
TRAINED = [name for name in PLAIN if name not in ("zero_shot", "zero_shot_bare", "tip_adapter")]


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
    exact, exact_loss, exact_text = ExactGradient(white, NAMES, config("true_gradient"))(*arguments, None, None)
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


LATER = {"adapter_start": 1, "fresh_text": True}
KEPT_IN_CHECKPOINTS = [
    ("cbbt_prompt", {"directions": "guided"}),
    ("cbbt", {"adapter_start": 1}),
    ("cbbt", {"adapter_start": 2}),
    ("cbbt", LATER | {"only_adapter": True}),
    ("cbbt", {"fresh_text": True, "prompt_every": 2}),
    ("cbbt", {"max_loss_queries": 10}),
    ("cbbt_tip", LATER | {"cosine": "step"}),
    ("true_gradient", {"fresh_text": True, "min_epoch_steps": 3}),
    ("coop4", {"max_loss_queries": 4, "warmup_epochs": 0}),
]


@pytest.mark.parametrize("method, settings", [(name, {}) for name in TRAINED] + KEPT_IN_CHECKPOINTS)
@pytest.mark.parametrize("stop_after", [1, 4, 5])
def test_a_resumed_fit_equals_an_undisturbed_one(loaded, support, method, settings, stop_after, tmp_path, killed_at):
    undisturbed = fit(loaded, support, method, **settings)
    path = tmp_path / "checkpoint.safetensors"
    with killed_at(stop_after):
        fit(loaded, support, method, checkpoint=path, **settings)
    resumed = fit(loaded, support, method, checkpoint=path, **settings)
    assert torch.equal(undisturbed[0].last.text, resumed[0].last.text)
    assert same(undisturbed[0], resumed[0], support) and undisturbed[0].best_epoch == resumed[0].best_epoch
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


def test_cbbt_support_asks_a_twentieth(loaded, support):
    own = dict(q=None, prompt_lr=None, epochs=5, batch_size=4)  # None: the method's own
    _, plain, _ = fit(loaded, support, "cbbt", **own)
    _, plus, _ = fit(loaded, support, "cbbt_support", **own)
    assert plain["class_prompts"] == 15 * 65 * 3 and plus["class_prompts"] == 5 * 8 * 3
    assert plus["class_prompts"] <= plain["class_prompts"] / 20


def test_scoring_on_the_support_sees_every_view(loaded, support):
    """With all coordinates asked, the estimate is the gradient of the loss over all views."""
    settings = config("cbbt_prompt", scoring="support", directions="coordinate", q=32, batch_size=12, epochs=1)
    box, white = BlackBox(loaded, CPU), WhiteBox(loaded, CPU)
    seen = []

    class Seen(EstimatedGradient):
        def __call__(self, *arguments):
            seen.append(super().__call__(*arguments))
            return seen[-1]

    session = Session(judge=box.with_ledger(Ledger()))
    start, source = box.token_embeddings("a"), Seen(box, NAMES, settings)
    tune(box, support, settings, session, adapter=IdentityAdapter(), context=start, prompt_gradient=source)
    features, _ = IdentityAdapter()(support.views.flatten(0, 1))
    exact, _, _ = ExactGradient(white, NAMES, settings)(start, features, None, support.labels.repeat(2), None, None)
    assert torch.cosine_similarity(seen[0][0].flatten(), exact.flatten(), dim=0) > 0.99


# ---- the text before tuning ----------------------------------------------------


@pytest.fixture
def texts(loaded, support):
    """Class features of the initial context "a" and of the hand-written template."""
    box = BlackBox(loaded, CPU)
    context = box.encode_prompts(box.token_embeddings("a")[None], NAMES)[0]
    return {"context": context, "template": box.encode_texts([f"a photo of a {name}." for name in NAMES])}


@pytest.mark.parametrize("start", ["context", "template"])
@pytest.mark.parametrize("method", ["adapter", "tip_adapter", "tip_adapter_f", "lfa", "zero_shot", "zero_shot_bare"])
def test_methods_of_features_start_from_one_and_the_same_text(loaded, support, texts, method, start):
    fitted, counts, _ = fit(loaded, support, method, start=start)
    assert torch.allclose(fitted.last.text, texts[start], atol=1e-5) and counts["class_prompts"] == 3
    assert not torch.allclose(texts["context"], texts["template"], atol=1e-2)


@pytest.mark.parametrize("start", ["context", "template"])
def test_a_cache_beside_tuned_prompts_is_chosen_beside_the_text_at_the_start(loaded, support, start):
    alone, *_ = fit(loaded, support, "tip_adapter", start=start)
    both, *_ = fit(loaded, support, "cbbt_tip", start=start)
    assert (both.last.adapter.alpha, both.last.adapter.beta) == (alone.last.adapter.alpha, alone.last.adapter.beta)


@pytest.mark.parametrize("method", ["cbbt", "cbbt_prompt", "true_gradient", "coop4"])
def test_prompts_start_from_the_context_in_any_case(loaded, support, method):
    (first, *_), (second, *_) = (fit(loaded, support, method, start=start) for start in ("context", "template"))
    assert same(first, second, support)


def test_zero_shot_reads_the_template_and_its_bare_row_the_initial_context(loaded, support, texts):
    for method, start in (("zero_shot", "template"), ("zero_shot_bare", "context")):
        fitted, *_ = fit(loaded, support, method)
        assert RunConfig("digits", method, shots=0).start == start and torch.allclose(fitted.last.text, texts[start], atol=1e-5)
    longer, *_ = fit(loaded, support, "zero_shot_bare", context_length=3, context_init="a photo of")
    assert not torch.allclose(longer.last.text, texts["context"], atol=1e-2)
    assert [name for name, method in METHODS.items() if "start" in method.defaults] == ["zero_shot"]


# ---- budgets -------------------------------------------------------------------


# Without a budget, six steps of five loss queries and fifteen class prompts each; a cache asks three texts before.
@pytest.mark.parametrize("method, before", [("cbbt", 0), ("cbbt_prompt", 0), ("cbbt_tip", 3)])
@pytest.mark.parametrize(
    "budget, asking",
    [
        ({"max_loss_queries": 5}, [0]),
        ({"max_loss_queries": 14}, [0, 3]),
        ({"max_class_prompts": 50}, [0, 2, 4]),
        ({"max_loss_queries": 24, "max_class_prompts": 80}, [0, 1, 3, 4]),
        ({"max_loss_queries": 100, "max_class_prompts": 79}, [0, 1, 2, 3, 4]),
    ],
)
def test_a_budget_ends_queries_and_not_learning(loaded, support, moves, method, before, budget, asking):
    fitted, counts, _ = fit(loaded, support, method, **budget)
    assert steps_of(moves.prompt) == asking
    assert counts["loss_queries"] == 5 * len(asking) and counts["class_prompts"] == before + 15 * len(asking)
    assert all(counts[grain.removeprefix("max_")] <= limit for grain, limit in budget.items())
    assert steps_of(moves.adapter) == ([] if method == "cbbt_prompt" else [0, 1, 2, 3, 4, 5])
    assert [row["step"] for row in fitted.history] == [2, 4, 6]
    json.dumps(fitted.history, allow_nan=False)  # of an epoch without a step of the prompt, too


@pytest.mark.parametrize("method", ["cbbt", "cbbt_prompt", "cbbt_tip", "cbbt_support", "true_gradient", "coop4"])
def test_a_larger_budget_than_planned_changes_nothing(loaded, support, moves, method):
    settings = {"q": 4, "max_loss_queries": 10**6, "max_class_prompts": 10**6}
    free, free_counts, _ = fit(loaded, support, method, q=4)
    made = list(moves.prompt), list(moves.adapter)
    moves.clear()
    held, counts, _ = fit(loaded, support, method, **settings)
    assert same(free, held, support) and counts == free_counts and (moves.prompt, moves.adapter) == made
    moves.clear()
    exact, counts, _ = fit(loaded, support, method, **{f"max_{grain}": count for grain, count in counts.items() if count})
    assert same(free, exact, support) and counts == free_counts and (moves.prompt, moves.adapter) == made


@pytest.mark.parametrize("budget", [{}, {"max_loss_queries": 14}, {"max_loss_queries": 29}, {"max_loss_queries": 10**4}])
def test_a_budget_leaves_the_schedule_as_it_is(loaded, support, moves, budget):
    """What a step's rate is depends on when it is made, not on how many are affordable."""
    fit(loaded, support, "cbbt", **budget)
    settings = config("cbbt")
    assert moves.prompt == [(step, learning_rate(0.05, step // 2, settings)) for step in steps_of(moves.prompt)]
    assert moves.adapter == [(step, learning_rate(settings.adapter_lr, step // 2, settings)) for step in range(6)]


def test_a_step_of_a_true_gradient_is_paid_for_as_well(loaded, support, moves):
    for method in ("true_gradient", "coop4", "coop16"):
        moves.clear()
        _, counts, _ = fit(loaded, support, method, max_loss_queries=4)
        assert steps_of(moves.prompt) == [0, 1, 3, 4] and counts == {"loss_queries": 4, "class_prompts": 12, "images": 0}


def test_affordable_steps_are_spread_evenly_over_the_planned_ones():
    draw = random.Random(0)
    for _ in range(500):
        total, every = draw.randint(1, 400), draw.randint(1, 7)
        planned = list(range(0, total, every))
        affordable = draw.randint(1, len(planned))
        steps = sorted(prompt_steps(total, every, affordable))
        assert len(steps) == affordable and steps[0] == 0 and set(steps) <= set(planned)
        gaps = {(b - a) // every for a, b in zip(steps, [*steps[1:], len(planned) * every])}  # the last, to the end
        assert max(gaps) - min(gaps) <= 1
        assert prompt_steps(total, every, None) == prompt_steps(total, every, len(planned) + draw.randint(0, 9)) == set(planned)


@pytest.mark.parametrize("method", ["cbbt", "cbbt_prompt"])
def test_a_budget_below_one_step_is_refused(loaded, support, method):
    with pytest.raises(BudgetExceeded, match="costs 5 loss_queries, of which 4 are left"):
        fit(loaded, support, method, max_loss_queries=4)
    with pytest.raises(BudgetExceeded, match="costs 18 class_prompts, of which 17 are left"):
        fit(loaded, support, method, max_class_prompts=17, fresh_text=True)


def test_a_budget_of_what_a_method_does_not_ask_changes_nothing(loaded, support):
    free, *_ = fit(loaded, support, "adapter")
    held, counts, _ = fit(loaded, support, "adapter", max_loss_queries=1)
    assert counts["loss_queries"] == 0 and same(free, held, support)


def test_prompt_steps_in_between_are_what_a_budget_is_spread_over(loaded, support, moves):
    for budget, asking in (({}, [0, 2, 4]), ({"max_loss_queries": 14}, [0, 2]), ({"max_loss_queries": 5}, [0])):
        moves.clear()
        fitted, counts, _ = fit(loaded, support, "cbbt", prompt_every=2, **budget)
        assert steps_of(moves.prompt) == asking and counts["loss_queries"] == 5 * len(asking)
        assert len(moves.adapter) == fitted.history[-1]["step"] == 6


# ---- batches and epochs --------------------------------------------------------


@pytest.mark.parametrize("n, size", [(12, 5), (12, 4), (7, 3), (10, 32), (1, 8), (160, 32), (33, 32)])
def test_batches_follow_each_other_without_a_gap(n, size):
    """After any number of steps no row was in more than one batch more than another."""
    counts, taken = torch.zeros(n, dtype=torch.int64), min(n, size)
    for step in range(3 * n):
        counts += torch.bincount(batch_rows(1, step, n, size), minlength=n)
        assert counts.sum() == taken * (step + 1) and counts.max() - counts.min() <= 1
    assert counts.tolist() == [3 * taken] * n  # 3 n batches are 3 · min(n, size) times all rows


@pytest.mark.parametrize("n, size", [(12, 4), (160, 32), (9, 9), (10, 32)])
def test_batches_that_fill_an_epoch_are_those_of_an_order_per_epoch(n, size):
    size = min(n, size)
    for step in range(4 * n // size):
        epoch, within = divmod(step, n // size)
        order = torch.randperm(n, generator=generator_for(3, "order", epoch))
        assert torch.equal(batch_rows(3, step, n, size), order[within * size : (within + 1) * size])


def one_shot(support) -> Support:
    return dataclasses.replace(support, views=support.views[:, :3], labels=support.labels[:3])


def test_an_epoch_has_at_least_so_many_steps(loaded, support, moves):
    for method in ("cbbt", "adapter", "cbbt_prompt"):
        moves.clear()
        fitted, counts, _ = fit(loaded, one_shot(support), method, min_epoch_steps=5, batch_size=32)
        assert [row["step"] for row in fitted.history] == [5, 10, 15] and [row["epoch"] for row in fitted.history] == [1, 2, 3]
        assert steps_of(moves.adapter if method == "adapter" else moves.prompt) == list(range(15))
        assert counts["loss_queries"] == (0 if method == "adapter" else 15 * 5)
    settings = config("cbbt_prompt")
    assert [rate for _, rate in moves.prompt] == [learning_rate(0.05, epoch, settings) for epoch in range(3) for _ in range(5)]


def test_all_shots_of_one_each_are_in_every_step(loaded, support, monkeypatch):
    seen = []
    original = EstimatedGradient.__call__
    monkeypatch.setattr(EstimatedGradient, "__call__", lambda self, *a: seen.append(sorted(a[3].tolist())) or original(self, *a))
    fit(loaded, one_shot(support), "cbbt_prompt", min_epoch_steps=5)
    assert seen == [[0, 1, 2]] * 15


def test_an_epoch_that_is_long_enough_stays_as_it_is(loaded, support):
    for batch_size in (2, 1):
        (one, *_), (five, *_) = (fit(loaded, support, "adapter", batch_size=batch_size, min_epoch_steps=k) for k in (1, 5))
        assert same(one, five, support) and five.history[0]["step"] == 12 // batch_size


def test_the_least_number_of_steps_is_five_unless_given():
    assert RunConfig("digits", shots=1).min_epoch_steps == 5
    with pytest.raises(ValueError, match="min_epoch_steps must be at least 1, got 0"):
        RunConfig("digits", min_epoch_steps=0)


@pytest.mark.parametrize("cosine", ["epoch", "step"])
def test_rates_fall_with_each_epoch_or_with_each_step(loaded, support, moves, cosine):
    fit(loaded, support, "cbbt", cosine=cosine, epochs=4)
    for side, base in ((moves.prompt, 0.05), (moves.adapter, config("cbbt").adapter_lr)):
        ages = [step // 2 if cosine == "epoch" else step / 2 for step in range(8)]
        cosines = [base / 2 * (1 + math.cos(math.pi * (age - 1) / 4)) for age in ages]
        assert [rate for _, rate in side] == pytest.approx([1e-5, 1e-5, *cosines[2:]])


# ---- when the adapter joins, and what text it meets ----------------------------


def plain_loop(loaded, support, settings, gradient_steps: int, joined: int):
    """Class text and adapter after six steps: the first `gradient_steps` move the prompt, those from `joined` on the adapter."""
    box = BlackBox(loaded, CPU)
    adapter, adapter_adam = residual_adapter(box, settings)
    context = start_context(box, support, settings).clone().requires_grad_()
    prompt_adam = torch.optim.Adam([context], weight_decay=settings.weight_decay)
    source = EstimatedGradient(box, NAMES, settings)
    for step in range(6):
        rows, epoch = batch_rows(1, step, 12, 5), step // 2
        raw, labels = support.views[epoch % 2][rows], support.labels[rows]
        features = adapter(raw)[0] if step >= joined else F.normalize(raw, dim=-1)
        if step < gradient_steps:
            draw = generator_for(1, "directions", step)
            gradient, _, text = source(context.detach(), features.detach(), None, labels, draw, None)
            context.grad = gradient * (5 / gradient.norm()).clamp(max=1)
            prompt_adam.param_groups[0]["lr"] = learning_rate(0.05, epoch, settings)
            prompt_adam.step()
            if settings.fresh_text:
                text = box.encode_prompts(context.detach()[None], NAMES)[0]
        if step >= joined:
            loss = F.cross_entropy(box.logit_scale * features @ text.T, labels)
            adapter_adam.zero_grad()
            loss.backward()
            adapter_adam.param_groups[0]["lr"] = learning_rate(settings.adapter_lr, epoch, settings)
            adapter_adam.step()
    return box.encode_prompts(context.detach()[None], NAMES)[0], adapter


@pytest.mark.parametrize(
    "settings, gradient_steps, joined",
    [
        ({}, 6, 0),
        ({"fresh_text": True}, 6, 0),
        ({"adapter_start": 1}, 6, 2),
        ({"adapter_start": 2, "fresh_text": True}, 6, 4),
        ({"adapter_start": 1, "fresh_text": True, "only_adapter": True}, 2, 2),
        ({"adapter_weight_decay": 0.1}, 6, 0),
    ],
)
def test_the_loop_is_a_plain_one(loaded, support, moves, settings, gradient_steps, joined):
    fitted, counts, _ = fit(loaded, support, "cbbt", adapter_lr=0.01, **settings)
    text, adapter = plain_loop(loaded, support, config("cbbt", adapter_lr=0.01, **settings), gradient_steps, joined)
    assert torch.allclose(fitted.last.text, text, atol=1e-5)
    assert torch.allclose(fitted.last.adapter.down.weight, adapter.down.weight, atol=1e-5)
    assert torch.allclose(fitted.last.adapter.up.weight, adapter.up.weight, atol=1e-5)
    assert steps_of(moves.prompt) == list(range(gradient_steps)) and steps_of(moves.adapter) == list(range(joined, 6))
    sets = 4 + 1 + settings.get("fresh_text", False)
    assert counts == {"loss_queries": 5 * gradient_steps, "class_prompts": 3 * sets * gradient_steps, "images": 0}


def test_fresh_text_is_one_more_set_of_prompts_for_each_step_of_the_prompt(loaded, support):
    for method, settings, sets in (
        ("cbbt", {}, 6 * 6),
        ("cbbt", {"differences": "two-sided"}, 6 * 10),
        ("cbbt", {"prompt_every": 3}, 2 * 6),
        ("cbbt_tip", {}, 6 * 6 + 1),
        ("true_gradient", {}, 6 * 2),
    ):
        _, counts, _ = fit(loaded, support, method, fresh_text=True, **settings)
        assert counts["class_prompts"] == 3 * sets
    _, counts, _ = fit(loaded, support, "cbbt", fresh_text=True, max_class_prompts=3 * 6 * 2 + 17)  # planned by what it costs
    assert counts["class_prompts"] == 3 * 6 * 2
    _, counts, _ = fit(loaded, support, "adapter", fresh_text=True)
    assert counts["class_prompts"] == 3  # its prompt makes no step


def test_until_the_adapter_joins_the_fit_is_the_prompts_alone(loaded, support):
    def observe(classifier):
        return {"adapter": type(classifier.adapter).__name__, "logits": classifier.logits(support.val_features).tolist()}

    alone, *_ = fit(loaded, support, "cbbt_prompt", observe=observe, epochs=4)
    late, *_ = fit(loaded, support, "cbbt", observe=observe, epochs=4, adapter_start=2, adapter_lr=0.05)
    assert late.history[:2] == alone.history[:2]
    assert [row["adapter"] for row in late.history] == ["IdentityAdapter"] * 2 + ["ResidualAdapter"] * 2
    assert late.history[2]["logits"] != alone.history[2]["logits"]


@pytest.mark.parametrize("adapter_start", [0, 1, 2])
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_the_best_on_validation_has_an_adapter_only_if_it_had_joined(loaded, support, adapter_start, epoch):
    """An epoch is the best where validation labels are what its classifier says of the shots."""
    raw, _ = support.whole()
    logits, settings = [], {"adapter_start": adapter_start, "adapter_lr": 0.05, "adapter_ratio": 0.8}
    fit(loaded, support, "cbbt", observe=lambda classifier: logits.append(classifier.logits(raw)) or {}, **settings)
    said = [each.argmax(dim=1).tolist() for each in logits]
    judged = dataclasses.replace(support, val_features=raw, val_labels=torch.tensor(said[epoch - 1]))
    fitted, *_ = fit(loaded, judged, "cbbt", **settings)
    assert fitted.best_epoch == 1 + said.index(said[epoch - 1])
    assert type(fitted.best_val.adapter) is (ResidualAdapter if fitted.best_epoch > adapter_start else IdentityAdapter)
    assert type(fitted.last.adapter) is ResidualAdapter
    assert torch.allclose(fitted.best_val.logits(raw), logits[fitted.best_epoch - 1], atol=1e-5)


def test_an_adapter_alone_joins_late_as_well(loaded, support, moves):
    fitted, counts, _ = fit(loaded, support, "adapter", adapter_start=1)
    assert steps_of(moves.adapter) == [2, 3, 4, 5] and counts["class_prompts"] == 3
    assert "train_loss" not in fitted.history[0] and "train_loss" in fitted.history[1]


@pytest.mark.parametrize(
    "budget, asking", [({}, [0, 1, 2, 3]), ({"max_loss_queries": 10}, [0, 2]), ({"max_loss_queries": 99}, [0, 1, 2, 3])]
)
def test_from_then_on_only_the_adapter_learns(loaded, support, moves, budget, asking):
    texts = []
    settings = LATER | {"only_adapter": True, "adapter_start": 2}
    fitted, counts, _ = fit(loaded, support, "cbbt", observe=lambda c: texts.append(c.text) or {}, **settings, **budget)
    assert steps_of(moves.prompt) == asking and steps_of(moves.adapter) == [4, 5]
    assert counts["loss_queries"] == 5 * len(asking) and counts["class_prompts"] == 3 * 6 * len(asking)
    assert torch.equal(texts[1], texts[2]) and not torch.equal(texts[0], texts[1])
    assert "gradient_norm" not in fitted.history[2]


@pytest.mark.parametrize("method", ["cbbt_prompt", "true_gradient", "coop4"])
def test_without_an_adapter_there_is_no_then(loaded, support, moves, method):
    """Settings of the adapter are nothing to a prompt alone: it makes all its steps."""
    plain, *_ = fit(loaded, support, method, fresh_text=True)
    made = list(moves.prompt)
    moves.clear()
    fitted, *_ = fit(loaded, support, method, **LATER, only_adapter=True)
    assert same(plain, fitted, support) and moves.prompt == made and len(made) == 6


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"adapter_start": 3}, "adapter_start must be less than the 3 epochs, got 3"),
        ({"adapter_start": -1}, "adapter_start must be at least 0"),
        ({"only_adapter": True, "fresh_text": True}, "only_adapter needs adapter_start ≥ 1"),
        ({"only_adapter": True, "adapter_start": 1}, "and fresh_text=True"),
        ({"adapter_weight_decay": -0.1}, "adapter_weight_decay must be at least 0"),
        ({"cosine": "batch"}, "cosine='batch' is unknown, choose from epoch, step"),
        ({"start": "words"}, "start='words' is unknown, choose from context, template"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        config("cbbt", **settings)


@pytest.mark.parametrize("method, length", [("coop4", 4), ("coop16", 16)])
def test_coop_is_stochastic_descent_with_momentum_from_a_random_context(loaded, support, method, length):
    """Six steps by hand: v ← 0.9 v + g + 5e-4 · context, context ← context − rate · v."""
    white, settings = WhiteBox(loaded, CPU), config(method)
    context = start_context(white, support, settings)
    assert context.shape == (length, 32) and context.std().item() == pytest.approx(0.02, rel=0.3)
    source, velocity = ExactGradient(white, NAMES, settings), 0.0
    for step in range(6):
        rows = batch_rows(1, step, 12, 5)
        features, _ = IdentityAdapter()(support.views[step // 2 % 2][rows])
        gradient, *_ = source(context, features, None, support.labels[rows], None, None)
        gradient = gradient * (5 / gradient.norm()).clamp(max=1) + 5e-4 * context
        velocity = 0.9 * velocity + gradient
        context = context - learning_rate(0.05, step // 2, settings) * velocity
    fitted, counts, _ = fit(loaded, support, method)
    assert torch.allclose(fitted.last.text, white.encode_prompts(context[None], NAMES)[0], atol=1e-5)
    assert fitted.learned == length * 32 and counts == {"loss_queries": 6, "class_prompts": 18, "images": 0}


def test_the_true_gradient_has_the_schedule_of_the_estimate(moves, loaded, support):
    rates = []
    for method in ("cbbt_prompt", "true_gradient"):
        moves.clear()
        fit(loaded, support, method, prompt_lr=None)
        rates.append(list(moves.prompt))
    assert rates[0] == rates[1]
    black, white = RunConfig("digits", "cbbt_prompt"), RunConfig("digits", "true_gradient")
    assert dataclasses.replace(black, method="true_gradient") == white


def test_what_is_learned_is_counted(loaded, support):
    context, adapter = 32, 2 * 24 * 6
    for method, expected in (("cbbt_prompt", context), ("adapter", adapter), ("cbbt", context + adapter), ("zero_shot", 0)):
        assert fit(loaded, support, method)[0].learned == expected
