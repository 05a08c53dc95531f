"""LFA: the closed form, the shrinkage, the ranking loss, and a refinement that resumes."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from scipy.linalg import orthogonal_procrustes

from cbbt.methods.lfa import aligned, best_shrinkage, disturbed, reranking_loss, shrunk
from cbbt.runs.config import RunConfig
from tests.test_tuning import fit


@pytest.fixture
def data(generator):
    """Unit-norm views (2, 12, 6) of four classes, labels, and text (4, 6)."""
    text = F.normalize(torch.randn(4, 6, generator=generator), dim=-1)
    labels = torch.arange(4).repeat(3)
    views = F.normalize(text[labels] + 0.5 * torch.randn(2, 12, 6, generator=generator), dim=-1)
    return views, labels, text


def test_the_closed_form_is_scipys(generator):
    text, labels = F.normalize(torch.randn(8, 6, generator=generator), dim=-1), torch.arange(8).repeat(3)
    views = F.normalize(torch.randn(2, 24, 6, generator=generator), dim=-1)
    expected, _ = orthogonal_procrustes(views.flatten(0, 1).numpy(), text[labels.repeat(2)].numpy())
    assert torch.allclose(aligned(views, labels, text), torch.from_numpy(expected), atol=1e-4)


def test_with_few_classes_the_map_is_as_near_and_turns_least(data):
    views, labels, text = data
    x, y = views.flatten(0, 1), text[labels.repeat(2)]
    w = aligned(views, labels, text)
    expected, _ = orthogonal_procrustes(x.numpy(), y.numpy())
    assert torch.allclose(w @ w.T, torch.eye(6), atol=1e-5)
    assert (x @ w - y).norm().item() == pytest.approx((x @ torch.from_numpy(expected) - y).norm().item(), rel=1e-5)
    assert w.trace() > expected.trace() and torch.allclose(aligned(text[None], torch.arange(4), text), torch.eye(6), atol=1e-4)


def test_shrinkage_ends_at_the_map_and_at_the_identity(generator):
    w = torch.randn(5, 5, generator=generator)
    assert torch.equal(shrunk(w, 0.0), w) and torch.allclose(shrunk(w, 1.0), torch.eye(5), atol=1e-6)


def test_shrinkage_is_chosen_by_held_out_hits(data, generator):
    views, labels, text = data
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    close = F.normalize(text[labels] + 0.05 * torch.randn(2, 12, 6, generator=generator), dim=-1)
    away = best_shrinkage(close @ -rotation, labels, text, 25, 3, generator)
    assert away < 0.6  # features that point elsewhere need the map
    wrong = best_shrinkage(close, labels, text, 25, 3, generator)
    assert wrong == 0.0  # all equally good: the least, as published


def test_the_loss_is_a_hand_loop(data):
    views, labels, text = data
    total = 0.0
    for x, label in zip(views[0], labels):
        distances = [(x - other).norm().item() for other in text]
        for j in sorted(range(4), key=distances.__getitem__)[:3]:
            m = (1 - (text[label] @ text[j]).item()) / 4
            total += max(0.0, distances[label] + m - distances[j])
    assert reranking_loss(views[0], labels, text).item() == pytest.approx(total / 36, abs=1e-5)
    assert reranking_loss(text[:2], torch.arange(2), text[:2]).isfinite()  # fewer classes than neighbours


def test_noise_and_dropout_come_half_of_the_time(generator):
    x = torch.ones(50, 40)
    outcomes = [disturbed(x, 0.035, 0.05, generator) for _ in range(400)]
    noisy = torch.tensor([bool((y != 0).any() and y[y != 0].unique().numel() > 1) for y in outcomes])
    dropped = torch.tensor([bool((y == 0).any()) for y in outcomes])
    for happened in (noisy, dropped, noisy == dropped):
        assert 0.4 < happened.double().mean() < 0.6
    only = [y for y, a, b in zip(outcomes, noisy, dropped) if a and not b]
    assert torch.stack(only).std().item() == pytest.approx(0.035, rel=0.05)
    only = [y for y, a, b in zip(outcomes, noisy, dropped) if b and not a]
    assert torch.stack(only).mean().item() == pytest.approx(1, abs=0.01)


def test_only_the_texts_are_asked_and_a_matrix_is_learned(loaded, support):
    hard = dataclasses.replace(support, views=torch.randn(support.views.shape, generator=torch.Generator().manual_seed(2)))
    fitted, counts, monitoring = fit(loaded, hard, "lfa", options={"steps": 60})
    assert counts == {"class_prompts": 3, "loss_queries": 0, "images": 0} and not any(monitoring.values())
    assert fitted.learned == 24**2 and len(fitted.history) == 60
    losses = [row["train_loss"] for row in fitted.history]
    assert sum(losses[-10:]) < sum(losses[:10])
    raw, _ = support.whole()
    assert fitted.last.adapter(raw)[0].norm(dim=-1).allclose(torch.ones(24), atol=1e-5)


@pytest.mark.parametrize("stop_after", [1, 4])
def test_a_killed_refinement_goes_on(loaded, support, stop_after, tmp_path, killed_at):
    undisturbed = fit(loaded, support, "lfa", options={"steps": 6})
    with killed_at(stop_after):
        fit(loaded, support, "lfa", checkpoint=tmp_path / "c.safetensors", options={"steps": 6})
    resumed = fit(loaded, support, "lfa", checkpoint=tmp_path / "c.safetensors", options={"steps": 6})
    assert torch.equal(undisturbed[0].last.adapter.weight, resumed[0].last.adapter.weight)
    assert undisturbed[0].history == resumed[0].history and undisturbed[1:] == resumed[1:]


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="dropout must be below 1, got 1.0"):
        RunConfig("digits", "lfa", options={"dropout": 1})
    with pytest.raises(ValueError, match="no option 'iterations'"):
        RunConfig("digits", "lfa", options={"iterations": 3})
