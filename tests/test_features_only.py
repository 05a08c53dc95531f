"""Methods that ask for features alone: closed forms against dense computations, and what each of them learns."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

import cbbt
from cbbt.adapters import KernelHead, LinearHead
from cbbt.box.blackbox import BlackBox
from cbbt.methods import gda as gda_file
from cbbt.methods import kernel_ridge as kernel_file
from cbbt.methods import linear_probe
from cbbt.methods.clap import Clap, zero_shot_trust
from cbbt.methods.cross_modal import CrossModal
from cbbt.methods.lp_plus import LpPlus, step_sizes
from cbbt.methods.parts.heads import best_constants, gda, gda_held_out, kernel, kernel_ridge, kernel_ridge_held_out, shot_numbers
from cbbt.methods.parts.start import start_text
from cbbt.methods.task_res import TaskRes
from cbbt.runs.config import RunConfig
from tests.test_tuning import fit, one_shot, same


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


# ---- the methods ---------------------------------------------------------------

CPU = torch.device("cpu")
CLOSED = ("linear_probe", "gda", "kernel_ridge")
TRAINED = {
    "cross_modal": {"steps": 12, "warmup_steps": 4},
    "task_res": {"passes": 6, "batch": 5},
    "zs_lp": {"passes": 6, "batch": 5},
    "clap": {"passes": 6, "batch": 5},
    "lp_plus": {"steps": 12, "text_every": 3},
}


def settings(method: str, **options) -> RunConfig:
    return RunConfig("digits", method, options=TRAINED.get(method, {}) | options)


@pytest.mark.parametrize("method", [*CLOSED, *TRAINED])
def test_only_the_texts_are_asked(loaded, support, method):
    fitted, counts, monitoring = fit(loaded, support, method, options=TRAINED.get(method, {}))
    texts = 0 if method == "linear_probe" else 3
    assert counts == {"class_prompts": texts, "loss_queries": 0, "images": 0} and not any(monitoring.values())
    learned = {"linear_probe": 75, "gda": 75, "kernel_ridge": 24 * 3, "lp_plus": 78}
    assert fitted.learned == learned.get(method, 72) and bool(fitted.history) == (method in TRAINED)


@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize("stop_after", [1, 7])
def test_a_killed_training_goes_on(loaded, support, method, stop_after, tmp_path, killed_at):
    options, path = TRAINED[method], tmp_path / "c.safetensors"
    undisturbed = fit(loaded, support, method, options=options)
    with killed_at(stop_after):
        fit(loaded, support, method, checkpoint=path, options=options)
    resumed = fit(loaded, support, method, checkpoint=path, options=options)
    assert same(undisturbed[0], resumed[0], support) and undisturbed[1:] == resumed[1:]
    assert len(undisturbed[0].history) == 12


@pytest.mark.parametrize("method", TRAINED)
def test_training_lowers_the_loss(loaded, support, method):
    longer = {"passes": 60} if "passes" in TRAINED[method] else {"steps": 150}
    fitted, *_ = fit(loaded, support, method, options=TRAINED[method] | longer)
    losses = [row["train_loss"] for row in fitted.history]
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize("method", [*CLOSED, *TRAINED])
def test_it_learns_from_shots(method):
    """On drawn digits, 16 of each, with the constants as they are published, but for the time they take."""
    options = {"steps": 600} if method == "cross_modal" else {}
    config = RunConfig("digits", method, shots=16, judge="validation", options=options)
    start = cbbt.run(RunConfig("digits", "zero_shot_bare", shots=0, judge="validation"))["scores"]["validation_accuracy"]
    assert cbbt.run(config)["scores"]["validation_accuracy"] > start + 8


@pytest.mark.parametrize("method", [*CLOSED, *TRAINED])
def test_every_view_has_a_part(loaded, support, method):
    few = {"steps": 4} if "steps" in TRAINED.get(method, {}) else {}
    whole, *_ = fit(loaded, support, method, options=TRAINED.get(method, {}) | few)
    support.views = support.views[:1]
    part, *_ = fit(loaded, support, method, options=TRAINED.get(method, {}) | few)
    assert not torch.allclose(whole.last.logits(support.val_features), part.last.logits(support.val_features), atol=1e-3)


@pytest.mark.parametrize("method, options, message", [
    ("gda", {"alpha": 0}, "alpha must be positive, got 0"),
    ("kernel_ridge", {"beta": 1.0}, "beta and ridge must both be given or both be None, got 1.0 and None"),
    ("kernel_ridge", {"beta": 1.0, "ridge": -1}, "ridge must be positive, got -1"),
    ("linear_probe", {"c": -1}, "c must be positive, got -1"),
    ("lp_plus", {"text_every": 0}, "text_every must be at least 1, got 0"),
    ("task_res", {"passes": 0}, "passes must be at least 1, got 0"),
    ("zs_lp", {"penalty": 1.0}, "method 'zs_lp' has no option 'penalty'"),
    ("clap", {"penalty": 0}, "penalty must be positive, got 0"),
    ("cross_modal", {"batch": 1}, "batch must be at least 2, got 1"),
])  # fmt: skip
def test_wrong_settings_are_named(method, options, message):
    with pytest.raises(ValueError, match=message):
        RunConfig("digits", method, options=options)


# ---- GDA and ProKeR ------------------------------------------------------------


def test_constants_are_those_that_classify_held_out_shots_best(loaded, support):
    """Every candidate, refitted by hand without the k-th shots of all classes."""
    box = BlackBox(loaded, CPU)
    text, (raw, labels) = start_text(box, support, settings("gda")), support.whole()
    features, number = F.normalize(raw, dim=-1), torch.tensor(2 * [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    tau = box.logit_scale

    def quality(head) -> tuple[int, float]:
        logits = torch.empty(24, 3)
        for fold in range(4):
            out = number == fold
            logits[out] = tau * features[out] @ text.T + head(features[~out], labels[~out], features[out])
        return (logits.argmax(1) == labels).sum().item(), -F.cross_entropy(logits, labels).item()

    def discriminant(alpha):
        return lambda x, y, new: LinearHead(*gda(x, y, 3), alpha)(new)[1]

    def regression(beta, ridge):
        return lambda x, y, new: KernelHead(x, kernel_ridge(x, y, x @ text.T, beta, ridge), beta, tau)(new)[1]

    alpha = fit(loaded, support, "gda")[0].last.adapter.alpha
    best, found = max(quality(discriminant(each)) for each in gda_file.ALPHAS), quality(discriminant(alpha))
    assert found[0] == best[0] and found[1] == pytest.approx(best[1], abs=1e-4)
    pair = kernel_file.held_out_constants(features, labels, features @ text.T, tau, number)
    pairs = [(beta, ridge) for beta in kernel_file.BETAS[::3] for ridge in kernel_file.RIDGES[::3]]
    found = quality(regression(*pair))
    assert all(found >= (hits, loss - 1e-4) for hits, loss in (quality(regression(*each)) for each in pairs))
    head = fit(loaded, support, "kernel_ridge")[0].last.adapter
    expected = tau * kernel_ridge(features, labels, features @ text.T, *pair)
    assert head.beta == pair[0] and torch.allclose(head.coefficients, expected, atol=1e-5)


def test_one_shot_of_each_leaves_nothing_to_choose_by(loaded, support):
    single = one_shot(support)
    assert fit(loaded, single, "gda")[0].last.adapter.alpha == gda_file.ONE_SHOT
    assert fit(loaded, single, "kernel_ridge")[0].last.adapter.beta == kernel_file.ONE_SHOT[0]
    x, labels = F.normalize(single.views[0], dim=-1), single.labels
    weight, _ = linear_probe.logistic_regression(x, labels, 3, linear_probe.CLIP, 1000)
    single.views = single.views[:1]
    assert torch.allclose(fit(loaded, single, "linear_probe")[0].last.adapter.weight, weight)


def test_two_shots_of_each_are_held_out_one_by_one(loaded, support):
    """Of one of each and a single view no covariance could be told, and every α would be as good as another."""
    support.views, support.labels = support.views[:1, :6], support.labels[:6]
    assert fit(loaded, support, "gda")[0].last.adapter.alpha > min(gda_file.ALPHAS)


# ---- LP++ ----------------------------------------------------------------------


def test_steps_follow_from_the_features(data):
    x, _, cosines = data
    largest = np.linalg.eigvalsh((x.T @ x).double().numpy()).max()
    rate, text_rate = step_sizes(x, cosines)
    assert rate == pytest.approx(4 * 20 / largest, rel=1e-4)
    assert text_rate == pytest.approx(20 / (4 * max((cosines[:, c] ** 2).sum().item() for c in range(4))), rel=1e-4)
    assert step_sizes(x.repeat(3, 1), cosines.repeat(3, 1)) == (pytest.approx(rate), pytest.approx(text_rate))


def test_lp_plus_is_its_algorithm(loaded, support):
    """Ten epochs written out: momentum of W and b, and a plain step of α, of that epoch's gradient, in the tenth."""
    box = BlackBox(loaded, CPU)
    config = settings("lp_plus", steps=10, text_every=10)
    method = LpPlus(box, support, config)
    text, (raw, labels) = start_text(box, support, config), support.whole()
    x = F.normalize(raw, dim=-1)
    weight = torch.stack([x[labels == c].sum(0) / 2 for c in range(3)], dim=1)
    bias, shares = torch.zeros(3), torch.full((3,), 2.5 * box.logit_scale * (x * text[labels]).sum(1).mean().item())
    moments = torch.zeros_like(weight), torch.zeros_like(bias)
    rate, text_rate = step_sizes(x, x @ text.T)
    for epoch in range(10):
        error = (x @ weight + bias + shares * (x @ text.T)).softmax(1) - F.one_hot(labels, 3)
        moments = 0.9 * moments[0] + x.T @ error / 24, 0.9 * moments[1] + error.mean(0)
        weight, bias = weight - rate * moments[0], bias - rate * moments[1]
        if epoch == 9:
            shares = shares - text_rate * (error * (x @ text.T)).mean(0)
        method.step(epoch, 10)
    for found, expected in zip(method.parameters().values(), (weight, bias, shares)):
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)
    logits = x @ weight + bias + shares * (x @ text.T)
    assert torch.allclose(method.classifier(box, method.parameters()).logits(raw), logits, rtol=1e-3, atol=1e-3)


# ---- TaskRes, ZS-LP and CLAP, the cross-modal probe ----------------------------


@pytest.mark.parametrize("method, kind", [("task_res", TaskRes), ("clap", Clap), ("cross_modal", CrossModal)])
def test_training_starts_at_zero_shot(loaded, support, method, kind):
    box = BlackBox(loaded, CPU)
    searcher = kind(box, support, settings(method))
    start = searcher.classifier(box, searcher.parameters())
    zero_shot, *_ = fit(loaded, support, "zero_shot_bare")
    assert torch.allclose(start.logits(support.val_features), zero_shot.last.logits(support.val_features), atol=1e-4)


def test_the_residual_moves_the_text_by_alpha(loaded, support):
    method = TaskRes(BlackBox(loaded, CPU), support, settings("task_res", alpha=0.7))
    residual = torch.randn(3, 24)
    expected = method.text + 0.7 * residual
    assert torch.allclose(method.moved(residual), expected / expected.norm(dim=1, keepdim=True), atol=1e-6)


def test_trust_is_the_mean_probability_of_the_true_class():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.7, 0.2, 0.1]]))
    trust = zero_shot_trust(logits, torch.tensor([0, 1, 0]))
    assert trust.tolist() == pytest.approx([0.6, 0.8, 0.0])


def test_clap_holds_the_prototypes_to_the_text(loaded, support):
    method = Clap(BlackBox(loaded, CPU), support, settings("clap", penalty=2.0))
    x, labels = method.features, support.labels.repeat(2)
    probabilities = (method.scale * x @ method.text.T).softmax(1)
    trust = [probabilities[labels == c, c].mean().item() for c in range(3)]
    moved = method.text + torch.tensor([[1.0], [2.0], [0.0]]) / math.sqrt(24)
    assert method.constraint(method.text) == 0
    assert method.constraint(moved).item() == pytest.approx(2 * (trust[0] + 4 * trust[1]) / 3, rel=1e-4)
    free, held = (fit(loaded, support, name, options={"passes": 60})[0].last.text for name in ("zs_lp", "clap"))
    assert (held - method.text).norm() < (free - method.text).norm()


def test_half_of_a_cross_modal_batch_are_texts(loaded, support, monkeypatch):
    box = BlackBox(loaded, CPU)
    method, seen = CrossModal(box, support, settings("cross_modal", batch=6)), []
    loss = F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", lambda logits, labels: seen.append((logits, labels)) or loss(logits, labels))
    method.step(0, 10)
    logits, labels = seen[0]
    assert logits.shape == (6, 3) and sorted(labels[3:].tolist()) == [0, 1, 2]
    assert torch.allclose(logits[3:], box.logit_scale * method.text[labels[3:]] @ method.text.T, atol=1e-3)


def test_the_cross_modal_rate_warms_up_and_falls_as_a_cosine(loaded, support):
    method = CrossModal(BlackBox(loaded, CPU), support, settings("cross_modal", warmup_steps=50))
    rates = [method.rate(index, 1000) for index in (0, 25, 50, 500)]
    assert rates == pytest.approx([1e-5, (1e-3 + 1e-5) / 2, 1e-3 * (1 + math.cos(math.pi * 0.05)) / 2, 5e-4])


# ---- the plain linear probe ----------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_is_scikit_learns(support, classes):
    raw, labels = support.whole()
    kept = labels < classes
    x, labels = F.normalize(raw[kept], dim=-1), labels[kept]
    weight, bias = linear_probe.logistic_regression(x, labels, classes, 10.0, 1000)
    expected = LogisticRegression(C=10.0, max_iter=1000).fit(x.double().numpy(), labels.numpy())
    assert np.allclose((x @ weight + bias).softmax(1), expected.predict_proba(x.double().numpy()), atol=1e-4)


def test_the_probe_never_answers_a_class_that_it_has_not_seen(support):
    raw, labels = support.whole()
    kept = labels != 1
    weight, bias = linear_probe.logistic_regression(F.normalize(raw[kept], dim=-1), labels[kept], 3, 1.0, 1000)
    assert not ((F.normalize(raw, dim=-1) @ weight + bias).argmax(1) == 1).any()


def test_the_penalty_is_searched_by_powers_and_halves(support, monkeypatch):
    """What classifies best lies at 10^1.3: the search ends within a hundredth of it."""
    asked = []

    def pretend(features, labels, n_classes, c, iterations):
        asked.append(math.log10(c))
        distance = abs(math.log10(c) - 1.3)
        return torch.zeros(features.shape[1], n_classes), torch.tensor([0.0, 5 + distance, 5 + distance])

    monkeypatch.setattr(linear_probe, "logistic_regression", pretend)
    raw, labels = support.whole()
    c = linear_probe.held_out_c(raw, labels, 3, torch.arange(24) % 4, 1000)
    assert math.log10(c) == pytest.approx(1.3, abs=0.01) and set(asked) >= set(linear_probe.POWERS)
