"""CBBT+: what it asks, that its prompt learns, how its experts are weighed, and that each part can be switched off."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from cbbt.box.access import ServiceRefused
from cbbt.box.ledger import Ledger
from cbbt.box.service import PoorBox
from cbbt.gradients.linearised import CANDIDATES
from cbbt.learning.fitting import Session
from cbbt.learning.judging import for_other_classes
from cbbt.methods import METHODS
from cbbt.methods.parts.experts import EXPERTS, pool_weights
from cbbt.runs.config import RunConfig

FAST = {"q": 4, "epochs": 3, "context_length": 2}


def config(method="cbbt_plus", **options):
    fields = {name: options.pop(name) for name in ("max_class_prompts", "max_loss_queries", "seed") if name in options}
    return RunConfig("digits", method, options=options, **FAST, **fields)


def fit(box, support, settings):
    box.ledger.budget = settings.budget
    return METHODS[settings.method].fit(box, support, settings, Session(judge=box.with_ledger(Ledger())))


def test_a_step_asks_its_directions_and_candidates_and_nothing_else(box, support):
    fit(box, support, config(steps=5))
    sets = 1 + 5 * (4 + CANDIDATES)
    assert box.ledger.counts == {"loss_queries": sets, "class_prompts": 3 * sets, "images": 0}


def test_a_budget_ends_the_prompts_steps(box, support):
    fit(box, support, config("cbbt_plus_prompt", max_class_prompts=3 * (1 + 4 * 7 + 6)))
    assert box.ledger.counts["class_prompts"] == 3 * (1 + 4 * 7)


def test_the_loss_of_the_prompt_falls_and_never_rises(box, support):
    losses = [row["train_loss"] for row in fit(box, support, config("cbbt_plus_prompt", steps=12)).history]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.95 * losses[0]


def test_without_experts_it_is_the_prompt_alone(box, support):
    alone = fit(box, support, config("cbbt_plus_prompt", steps=3)).last
    raw = support.views[0]
    assert torch.allclose(alone.logits(raw), box.logit_scale * F.normalize(raw, dim=-1) @ alone.text.T)
    assert alone.retext(box, support).equal(alone.text)


def test_without_steps_or_weight_the_prompt_has_no_part(box, support):
    """Experts meet the initial text, whatever becomes of the prompt."""
    tuned, untuned = (fit(box, support, config(steps=steps, prompt_weight=0.0)).last for steps in (3, 0))
    raw = support.val_features
    assert not torch.equal(tuned.text, untuned.text)
    assert torch.equal(tuned.logits(raw), untuned.logits(raw))


def test_the_logits_are_the_weighted_votes(box, support):
    classifier = fit(box, support, config(steps=2)).last
    raw, experts = support.val_features, classifier.adapter
    share = 0.5 / 4**0.5 * experts.weights.sum().item()  # four shots of each class
    prompt = box.logit_scale * F.normalize(raw, dim=-1) @ classifier.text.T
    votes = torch.tensordot(experts.weights, experts.votes(raw), dims=1)
    assert torch.allclose(classifier.logits(raw), share * prompt + votes, atol=1e-5)
    assert torch.allclose(experts.votes(raw).exp().sum(dim=-1), torch.ones(len(EXPERTS), len(raw)), atol=1e-5)


def test_numbers_learned_are_the_context_and_what_the_experts_were_fitted_to(box, support):
    fitted = fit(box, support, config(steps=1))
    raw, labels = support.whole()
    classes, width = fitted.last.text.shape
    kernel, linear, bottleneck = len(raw) * classes, (width + 1) * classes, 2 * width * (width // 4)
    context = FAST["context_length"] * box.context_dim
    assert fitted.learned == context + len(EXPERTS) + kernel + bottleneck + width**2 + linear
    with_keys = sum(buffer.numel() for buffer in fitted.last.adapter.buffers())
    assert with_keys > fitted.learned - context  # the shots themselves and the initial text are no part of it


def test_the_prompt_meets_other_classes_at_the_models_own_scale(box, support):
    """The weight beside the experts stays behind with them: it says nothing of how sure the prompt alone is."""
    classifier = fit(box, support, config(steps=2)).last
    words = dataclasses.replace(support, class_names=("cat", "dog"))
    other, parts = for_other_classes(classifier, words, box, start=None)
    raw = support.val_features
    assert parts == ["prompt"] and classifier.text_weight < 1
    assert torch.allclose(other.logits(raw), box.logit_scale * F.normalize(raw, dim=-1) @ other.text.T)


def test_one_shot_leaves_the_experts_equal(box, support):
    single = dataclasses.replace(support, views=support.views[:, :3], labels=support.labels[:3])
    assert torch.allclose(fit(box, single, config(steps=1)).last.adapter.weights, torch.full((4,), 0.25))


def test_an_expert_that_guesses_loses_its_weight_and_a_good_one_gains():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(40)
    good = (2 * F.one_hot(labels, 3) + torch.randn(120, 3, generator=generator)).log_softmax(dim=-1)
    guess = (3 * torch.randn(120, 3, generator=generator)).log_softmax(dim=-1)
    weights = pool_weights(torch.stack([good, guess]), labels, 120)
    assert weights[0] > 4 * weights[1] and (weights > 0).all()
    held = pool_weights(torch.stack([good, guess]), labels, 1)  # a strong prior
    assert abs(held[0] - 0.5) < abs(weights[0] - 0.5)


def test_the_weights_minimise_what_the_docstring_says():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(4).repeat(10)
    votes = torch.stack([F.one_hot(labels, 4) * scale + torch.randn(40, 4, generator=generator) for scale in (2.0, 1.0)])
    votes = votes.log_softmax(dim=-1).double()

    def objective(weights):
        pooled = torch.tensordot(weights, votes, dims=1)
        return F.cross_entropy(pooled, labels) + (weights * 2).log().square().sum() / 80

    best = pool_weights(votes, labels, 40).double()
    assert all(objective(best) <= objective(best * (1 + 0.02 * change)) for change in torch.eye(2).double().repeat(2, 1) * 2 - 1)


def test_no_held_out_shot_is_among_those_that_its_votes_come_from(box, support, monkeypatch):
    """Labels of a held-out part are changed: the votes on that part stay."""
    seen = []
    monkeypatch.setattr("cbbt.methods.parts.experts.pool_weights", lambda votes, *rest: seen.append(votes) or torch.ones(4) / 4)
    fit(box, support, config(steps=1))
    changed = dataclasses.replace(support, labels=support.labels.clone())
    changed.labels[:3] = changed.labels[:3].roll(1)  # the first shots of all classes: held out together
    fit(box, changed, config(steps=1))
    first = slice(0, 3 * len(support.views))
    assert torch.allclose(seen[0][:, first], seen[1][:, first], atol=1e-5)
    assert not torch.allclose(seen[0][:, first.stop :], seen[1][:, first.stop :], atol=1e-3)


def test_logits_lead_where_features_lead(box, support):
    """The prompt by logits: asked as often, nearly as low a loss, and a box whose text features are sealed suffices."""
    methods = ("cbbt_plus_prompt", "cbbt_plus_logits")
    by_features, by_logits = (fit(box, support, config(method, steps=8)).history[-1]["train_loss"] for method in methods)
    start = fit(box, support, config("cbbt_plus_prompt", steps=1)).history[0]["train_loss"]
    assert by_logits < start and by_logits - start == pytest.approx(by_features - start, rel=0.5)
    poor, before = PoorBox(box, "logits", seed=1), dict(box.ledger.counts)
    fitted = fit(poor, support, config("cbbt_plus_logits", steps=8))
    assert fitted.history[-1]["train_loss"] == pytest.approx(by_logits, rel=1e-5)
    assert box.ledger.counts["loss_queries"] - before["loss_queries"] == 1 + 8 * (4 + CANDIDATES)
    with pytest.raises(ServiceRefused):
        fit(PoorBox(box, "logits", seed=1), support, config("cbbt_plus_prompt", steps=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experts": ["kernel", "oracle"]}, "choose from kernel, adapter, map, gda"),
        ({"experts": ["kernel", "kernel"]}, "experts"),
        ({"prompt_weight": -1.0}, "prompt_weight"),
        ({"ridge": 0.0}, "ridge"),
        ({"shrinkage": 1.5}, r"shrinkage must lie in \[0, 1\]"),
        ({"steps": -1}, "steps"),
        ({"answers": "losses"}, "answers"),
        ({"answers": "logits"}, "experts need prompt features"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)
