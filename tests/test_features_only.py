"""Methods that ask for features alone: closed forms against dense computations, and what each of them learns."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from cbbt.adapters import KernelHead, LinearHead
from cbbt.methods.parts.heads import best_constants, gda, gda_held_out, kernel, kernel_ridge, kernel_ridge_held_out, shot_numbers


@pytest.fixture
def data(generator):
    """Unit-norm features (20, 6) of four classes, labels in no order, and cosines (20, 4) with four text vectors."""
    labels = torch.arange(20)[torch.randperm(20, generator=generator)] % 4
    text = F.normalize(torch.randn(4, 6, generator=generator), dim=-1)
    features = F.normalize(text[labels] + 0.6 * torch.randn(20, 6, generator=generator), dim=-1)
    return features, labels, features @ text.T


# ---- closed forms --------------------------------------------------------------


def test_gda_is_the_formula_of_its_source(data):
    x, labels, _ = data
    x64 = x.double().numpy()
    means = np.stack([x64[labels == c].mean(0) for c in range(4)])
    covariance = np.cov((x64 - means[labels]).T)
    precision = 6 * np.linalg.pinv(19 * covariance + np.trace(covariance) * np.eye(6))
    weight, bias = gda(x, labels, 4)
    assert weight.shape == (6, 4) and np.allclose(weight, precision @ means.T, rtol=1e-4)
    assert np.allclose(bias, np.log(1 / 4) - 0.5 * np.einsum("cd,de,ce->c", means, precision, means), rtol=1e-4)


class Shrunk:
    """The shrunk covariance of one class's features, for scikit-learn, which takes the mean over the four classes."""

    def fit(self, features):
        scatter = np.cov(features.T, ddof=0) * len(features)
        self.covariance_ = 4 / 6 * (scatter + np.trace(scatter) / 19 * np.eye(6))


def test_gda_is_linear_discriminant_analysis(data):
    x, labels, _ = data
    lda = LinearDiscriminantAnalysis(solver="lsqr", priors=[0.25] * 4, covariance_estimator=Shrunk())
    lda.fit(x.double().numpy(), labels.numpy())
    weight, bias = gda(x.double(), labels, 4)
    assert np.allclose(lda.coef_.T, weight) and np.allclose(lda.intercept_, bias)


def test_gda_of_single_shots_says_nothing(data):
    x, labels, _ = data
    weight, bias = gda(x[:1], labels[:1], 4)
    assert not weight.any() and torch.allclose(bias, torch.tensor(0.25).log().expand(4))


def test_gda_takes_a_class_without_shots_for_the_mean_of_all(data):
    x, labels, _ = data
    kept = labels != 2
    (weight, bias), (others, _) = gda(x[kept], labels[kept], 4), gda(x[kept], labels[kept] - (labels[kept] > 2).long(), 3)
    assert torch.allclose(weight[:, [0, 1, 3]], others, atol=1e-5)
    shares = F.one_hot(labels[kept], 4).float().mean(0)
    assert torch.allclose(weight[:, 2], weight @ shares, atol=1e-4) and bias.isfinite().all()


def test_kernel_ridge_minimises_the_regularised_squares(data):
    """The closed form is λ times the minimiser of Σ (residual − K a)² + λ aᵀ K a: its gradient vanishes there."""
    x, labels, base = (part.double() if part.is_floating_point() else part for part in data)
    coefficients = (kernel_ridge(x, labels, base, 2.0, 0.3) / 0.3).requires_grad_()
    gram = torch.exp(-2.0 * (1 - x @ x.T))
    residual = F.one_hot(labels, 4) - base
    loss = (residual - gram @ coefficients).square().sum() + 0.3 * (coefficients * (gram @ coefficients)).sum()
    loss.backward()
    assert coefficients.grad.abs().max() < 1e-10
    dense = torch.linalg.inv(gram / 0.3 + torch.eye(20, dtype=torch.float64)) @ residual
    assert torch.allclose(0.3 * coefficients, dense, atol=1e-10)


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("uneven", [False, True])
def test_what_is_held_out_is_what_a_real_refit_says(data, generator, views, uneven):
    """By the k-th shots of all classes, and by single shots; all views of a shot leave together."""
    x, labels, base = data
    if uneven:
        x, labels, base = x[:13], labels[:13], base[:13]
    noisy = [F.normalize(x + 0.1 * torch.randn(x.shape, generator=generator), dim=-1) for _ in range(views)]
    x, base = torch.cat(noisy), base.repeat(views, 1)
    for folds in (shot_numbers(labels).repeat(views), torch.arange(len(labels)).repeat(views)):
        every = labels.repeat(views)
        ridges = (0.05, 0.5, 2.0)
        regressions = list(kernel_ridge_held_out(x, every, base, 1.7, ridges, folds))
        discriminants = gda_held_out(x, every, 4, folds)
        for fold in folds.unique():
            out = folds == fold
            for ridge, found in zip(ridges, regressions):
                coefficients = kernel_ridge(x[~out], every[~out], base[~out], 1.7, ridge)
                assert torch.allclose(found[out], base[out] + kernel(x[out], x[~out], 1.7) @ coefficients, atol=1e-5)
            weight, bias = gda(x[~out], every[~out], 4)
            assert torch.allclose(discriminants[out], x[out] @ weight + bias, atol=1e-4)


def test_shots_are_numbered_within_their_classes():
    assert shot_numbers(torch.tensor([2, 0, 0, 1, 2, 0])).tolist() == [0, 0, 1, 0, 1, 2]


def test_accuracy_chooses_and_cross_entropy_breaks_ties():
    labels, sure = torch.tensor([0, 1]), 10 * torch.eye(2)
    wrong, right = sure.flip(0), 0.1 * sure
    assert best_constants([("wrong", wrong), ("right", right), ("sure", sure), ("again", sure)], labels) == "sure"
    assert best_constants([("right", right), ("half", 10 * sure[:1].expand(2, -1))], labels) == "right"


def test_heads_add_their_logits_to_unit_norm_features(generator):
    raw, weight = 5 * torch.randn(3, 6, generator=generator), torch.randn(6, 4, generator=generator)
    unit = raw / raw.norm(dim=1, keepdim=True)
    features, offsets = LinearHead(weight, torch.arange(4.0), alpha=0.5)(raw)
    assert torch.allclose(features, unit) and torch.allclose(offsets, 0.5 * (unit @ weight) + torch.arange(4) / 2)
    keys, coefficients = torch.randn(7, 6, generator=generator), torch.randn(7, 4, generator=generator)
    features, offsets = KernelHead(keys, coefficients, beta=2.0, scale=30.0)(raw)
    affinity = torch.exp(-2 * (1 - F.cosine_similarity(raw[:, None], keys[None], dim=-1)))
    assert torch.allclose(features, unit) and torch.allclose(offsets, 30 * affinity @ coefficients, atol=1e-4)
    with pytest.raises(ValueError, match="beta > 0, got 0"):
        KernelHead(keys, coefficients, beta=0)
