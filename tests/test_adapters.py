"""Adapters against their formulas, written out by hand, and what a cache is chosen by."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from cbbt.adapters import CacheAdapter, IdentityAdapter, ResidualAdapter
from cbbt.learning.fitting import Support
from cbbt.methods.parts.start import PUBLISHED_START, SHARPNESSES, WEIGHTS, held_out_logits, support_cache
from cbbt.runs.config import RunConfig
from tests.test_tuning import fit, one_shot


def test_residual_adapter_is_clip_adapters_formula(generator):
    adapter = ResidualAdapter(16, reduction=4, ratio=0.2, generator=generator)
    raw = 5 * torch.randn(3, 16)
    hidden = (raw @ adapter.down.weight.T).clamp(min=0)
    mixed = 0.2 * (hidden @ adapter.up.weight.T).clamp(min=0) + 0.8 * raw
    features, offsets = adapter(raw)
    assert offsets is None and torch.allclose(features, mixed / mixed.norm(dim=1, keepdim=True), atol=1e-6)
    assert adapter.down.weight.shape == (4, 16) and adapter.down.bias is None


def test_ratio_zero_is_the_identity(generator):
    raw = torch.randn(3, 16)
    features, _ = ResidualAdapter(16, ratio=0.0, generator=generator)(raw)
    assert torch.allclose(features, IdentityAdapter()(raw)[0], atol=1e-6)


def test_initial_weights_depend_on_the_generator_alone():
    torch.manual_seed(1)
    first = ResidualAdapter(16, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(2)
    second = ResidualAdapter(16, generator=torch.Generator().manual_seed(5))
    assert torch.equal(first.down.weight, second.down.weight) and torch.equal(first.up.weight, second.up.weight)


def test_cache_adapter_is_tip_adapters_formula():
    keys, labels, raw = torch.randn(6, 8), torch.tensor([0, 1, 2, 0, 1, 2]), torch.randn(4, 8)
    _, offsets = CacheAdapter(keys, labels, 3, alpha=1.7, beta=5.5)(raw)
    affinity = F.normalize(raw, dim=1) @ F.normalize(keys, dim=1).T
    expected = torch.zeros(4, 3)
    for row in range(4):
        for key, label in enumerate(labels.tolist()):
            expected[row, label] += 1.7 * torch.exp(-5.5 * (1 - affinity[row, key]))
    assert torch.allclose(offsets, expected, atol=1e-5)


# ---- α and β of a cache, on held-out shots -------------------------------------

TAU = 30.0
LABELS = {  # in no order; as many of each class, or not
    "four of each": torch.tensor([2, 0, 0, 1, 2, 1, 1, 0, 2, 0, 1, 2]),
    "four, two and one": torch.tensor([0, 1, 0, 2, 1, 0, 0]),
}


def without_one_of_each(keys, labels, text, alpha, beta):
    """Logits of every shot from a cache from which the shots of its own number in their classes were taken."""
    seen, numbers, logits = {}, [], []
    for label in labels.tolist():
        numbers.append(seen.get(label, 0))
        seen[label] = numbers[-1] + 1
    for shot, number in enumerate(numbers):
        kept = [row for row, other in enumerate(numbers) if other != number]
        features, offsets = CacheAdapter(keys[kept], labels[kept], len(text), alpha, beta)(keys[shot : shot + 1])
        logits.append(TAU * features @ text.T + offsets)
    return torch.cat(logits).detach()


@pytest.fixture
def shots(generator):
    """A function labels → unit-norm keys (n, 8) and class text (3, 8) that does not settle everything."""

    def draw(labels):
        text = F.normalize(torch.randn(3, 8, generator=generator), dim=-1)
        centres = F.normalize(torch.randn(3, 8, generator=generator), dim=-1)
        keys = 0.5 * text[labels] + centres[labels] + 0.8 * torch.randn(len(labels), 8, generator=generator)
        return F.normalize(keys, dim=-1), text

    return draw


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("alpha, beta", [(0.3, 0.5), (4.0, 5.5), (30.0, 100.0)])
def test_held_out_logits_are_those_of_a_cache_without_the_shot(shots, labels, alpha, beta):
    keys, text = shots(labels)
    expected = without_one_of_each(keys, labels, text, alpha, beta)
    assert torch.allclose(held_out_logits(keys, labels, text, TAU, alpha, beta), expected, atol=1e-4)


def test_no_class_has_a_key_more_than_another_while_shots_are_held_out():
    """With equal keys and β → 0 each class has as much of the cache as any other."""
    keys, labels = torch.eye(8)[:1].expand(12, -1), LABELS["four of each"]
    assert torch.allclose(held_out_logits(keys, labels, torch.zeros(3, 8), TAU, 1.0, 1e-6), torch.full((12, 3), 3.0), atol=1e-4)


def cache_of(keys, labels, text, tau=TAU, views=2, **settings):
    """The cache that a method would start from, of views that are scaled: keys come from normalised ones."""
    scale = torch.arange(1, views + 1).view(-1, 1, 1)
    support = Support(scale * keys, labels, keys[:0], labels[:0], ("a", "b", "c"), "{}")
    return support_cache(text, support, RunConfig("digits", "tip_adapter", **settings), tau)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("given", [{}, {"cache_alpha": 2.0}, {"cache_beta": 7.0}, {"cache_alpha": 2.0, "cache_beta": 7.0}])
def test_a_cache_has_the_values_that_classify_held_out_shots_best(shots, labels, given):
    """Of all pairs the most hits, and of those the lowest cross-entropy; what is given stays."""
    keys, text = shots(labels)
    cache = cache_of(keys, labels, text, **given)
    assert torch.allclose(cache.keys, keys, atol=1e-6)
    qualities = {}
    for alpha in [given["cache_alpha"]] if "cache_alpha" in given else [TAU * weight for weight in WEIGHTS]:
        for beta in [given["cache_beta"]] if "cache_beta" in given else SHARPNESSES:
            logits = without_one_of_each(keys, labels, text, alpha, beta)
            hits = (logits.argmax(dim=1) == labels).sum().item()
            qualities[alpha, beta] = hits, -F.cross_entropy(logits, labels).item()
    best = max(qualities.values())
    chosen = qualities[cache.alpha, cache.beta]
    assert chosen[0] == best[0] and chosen[1] == pytest.approx(best[1], abs=1e-5)


def test_a_cache_is_never_left_out(generator):
    """Also where the text alone classifies every shot, and labels are noise."""
    text, labels = torch.eye(8)[:3], LABELS["four of each"]
    for keys in (text[labels], F.normalize(torch.randn(12, 8, generator=generator), dim=-1)):
        cache = cache_of(keys, labels, text)
        assert cache.alpha in [TAU * weight for weight in WEIGHTS] and cache.beta in SHARPNESSES
    assert min(WEIGHTS) > 0
    with pytest.raises(ValueError, match="cache_alpha must be positive or None, got 0"):
        RunConfig("digits", "tip_adapter", cache_alpha=0.0)


def test_one_shot_of_each_leaves_nothing_to_choose_by(shots):
    """Tip-Adapter's starting values, α in proportion to the logits: 1 where they are scaled by 100, as CLIP's."""
    labels = torch.tensor([2, 0, 1])
    keys, text = shots(labels)
    weight, sharpness = PUBLISHED_START
    for tau in (100.0, 30.0):
        cache = cache_of(keys, labels, text, tau)
        assert (cache.alpha, cache.beta) == (pytest.approx(tau / 100), 5.5) and (weight * 100, sharpness) == (1, 5.5)
    assert (cache.alpha, cache_of(keys, labels, text, cache_beta=3.0).beta) == (pytest.approx(0.3), 3.0)
    assert cache_of(keys, labels, text, cache_alpha=3.0).alpha == 3.0


def test_weights_grow_with_the_scale_of_the_logits(shots):
    """At whatever scale, the pairs to choose from give the same logits in proportion to it, and so the same hits."""
    keys, text = shots(labels := LABELS["four of each"])

    def proportions(tau):
        pairs = [(tau * weight, beta) for weight in WEIGHTS for beta in SHARPNESSES]
        return torch.stack([held_out_logits(keys, labels, text, tau, *pair) / tau for pair in pairs])

    for tau in (3.0, 300.0):
        assert torch.allclose(proportions(tau), proportions(30.0), atol=1e-5)
        assert cache_of(keys, labels, text, tau).alpha in [tau * weight for weight in WEIGHTS]


@pytest.mark.parametrize("method", ["tip_adapter_f", "cbbt_tip"])
@pytest.mark.parametrize("shots_each", [1, 4])
def test_a_curve_and_a_table_have_one_pair_of_values(loaded, support, method, shots_each):
    """What is chosen before the training holds in every epoch, in the last step, and in the best on validation."""
    pairs = []
    support = support if shots_each == 4 else one_shot(support)
    start, *_ = fit(loaded, support, "tip_adapter")
    fitted, *_ = fit(
        loaded, support, method, cache_lr=0.1, observe=lambda c: pairs.append((c.adapter.alpha, c.adapter.beta)) or {}
    )
    assert pairs == [(start.last.adapter.alpha, start.last.adapter.beta)] * 3
    for classifier in (fitted.last, fitted.best_val):
        assert (classifier.adapter.alpha, classifier.adapter.beta) == pairs[0]
    assert not torch.allclose(fitted.last.adapter.keys, start.last.adapter.keys, atol=1e-3)


@pytest.mark.parametrize("method", ["tip_adapter", "tip_adapter_f", "cbbt_tip"])
def test_a_cache_reads_no_label_of_validation(loaded, support, method):
    other = dataclasses.replace(support, val_labels=support.val_labels.roll(1))
    (first, *_), (second, *_) = (fit(loaded, each, method) for each in (support, other))
    assert torch.equal(first.last.logits(support.val_features), second.last.logits(support.val_features))
    assert (first.last.adapter.alpha, first.last.adapter.beta) == (second.last.adapter.alpha, second.last.adapter.beta)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda g: ResidualAdapter(16, ratio=1.2, generator=g), r"\[0, 1\], got 1.2"),
        (lambda g: ResidualAdapter(16, reduction=17, generator=g), r"1 … 16, got 17"),
        (lambda g: CacheAdapter(torch.randn(2, 4), torch.tensor([0, 1]), 2, beta=0), "beta > 0"),
    ],
)
def test_bad_settings_are_refused(build, message, generator):
    with pytest.raises(ValueError, match=message):
        build(generator)
