"""BlackVIP: the published decoder, its update, what it asks, and how it resumes."""

import dataclasses

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cbbt.box.blackbox import BlackBox
from cbbt.box.ledger import Ledger
from cbbt.learning.fitting import Session
from cbbt.methods.blackvip import BlackVip, fit
from cbbt.methods.parts.image_decoder import ImageDecoder
from cbbt.methods.parts.image_encoders import PrincipalComponents, TimmEncoder
from cbbt.runs.config import RunConfig
from cbbt.seeding import generator_for
from tests.conftest import NAMES

CPU = torch.device("cpu")


def config(**settings) -> RunConfig:
    return RunConfig.from_dict({"dataset": "digits", "method": "blackvip_pca", "batch": 5, "steps": 4} | settings)


def searcher(box, pictured, **settings) -> BlackVip:
    return BlackVip(box, pictured, config(**settings))


def test_the_published_decoder_has_9920_numbers():
    decoder = ImageDecoder(224, code_width=768)
    weights = decoder.initial(torch.Generator().manual_seed(0))
    assert decoder.size == len(weights) == 9920 and decoder.shapes["trigger"] == (800,)
    trigger = weights[:800]
    assert 0 <= trigger.min() and trigger.max() <= 0.1 and trigger.mean() == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize("image_size, start, doublings", [(224, 7, 5), (32, 4, 3), (16, 4, 2), (336, 6, 6), (7, 4, 1)])
def test_other_sizes_of_image_take_fewer_or_more_stages(image_size, start, doublings):
    decoder = ImageDecoder(image_size, code_width=8)
    assert (decoder.start_side, decoder.doublings, len(decoder.stages)) == (start, doublings, doublings - 1)
    if image_size < 100:
        weights = decoder.initial(torch.Generator().manual_seed(0))
        assert decoder(weights[None], torch.zeros(2, 8)).shape == (1, 2, 3, image_size, image_size)


def test_a_code_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="32 pixels start from a map of 512 numbers.*got 768"):
        ImageDecoder(32, code_width=768)


def layers_of(decoder: ImageDecoder, weights: torch.Tensor) -> nn.Sequential:
    """The same decoder, built of PyTorch's own layers."""
    w = {name: part.view(shape) for (name, shape), part in zip(decoder.shapes.items(), weights.split(decoder.sizes))}
    layers, channels = [], 32
    for i, (middle, out) in enumerate(decoder.stages):
        spread = nn.ConvTranspose2d(channels, middle, 2, 2, groups=channels)
        mix, norm = nn.ConvTranspose2d(middle, out, 1, bias=False), nn.BatchNorm2d(out)
        spread.weight.data, spread.bias.data = w[f"spread{i}"].view_as(spread.weight), w[f"bias{i}"]
        mix.weight.data, norm.weight.data, norm.bias.data = w[f"mix{i}"][..., None, None], w[f"scale{i}"], w[f"shift{i}"]
        layers += [spread, mix, norm, nn.GELU()]
        channels = out
    last = nn.ConvTranspose2d(channels, 3, 2, 2, bias=False)
    last.weight.data = w["last"].view_as(last.weight)
    return nn.Sequential(*layers, last)


@pytest.mark.parametrize("image_size, width", [(224, 768), (32, 20)])
def test_many_decoders_at_once_equal_layers_one_by_one(image_size, width):
    decoder, draw = ImageDecoder(image_size, width), torch.Generator().manual_seed(1)
    points = torch.stack([decoder.initial(draw) + 0.1 * torch.randn(decoder.size, generator=draw) for _ in range(2)])
    codes = torch.randn(3, width, generator=draw)
    pictures = decoder(points, codes)
    for weights, picture in zip(points, pictures):
        trigger = weights[: decoder.sizes[0]].expand(3, -1)
        filled = torch.cat([codes, trigger], dim=1).view(3, 32, decoder.start_side, decoder.start_side)
        layers = layers_of(decoder, weights)
        with torch.no_grad():
            assert torch.allclose(layers(filled), picture, atol=1e-4)
    # deployed, the norms use what they are given
    for layer, (mean, variance) in zip(
        [m for m in layers if isinstance(m, nn.BatchNorm2d)], decoder.statistics(weights, codes, 3)
    ):
        layer.running_mean, layer.running_var = mean[0], variance[0]
    with torch.no_grad():
        deployed = decoder(weights[None], codes[:1], decoder.statistics(weights, codes, 3))[0]
        assert torch.allclose(layers.eval()(filled[:1]), deployed, atol=1e-4)


def test_principal_components_are_uncorrelated_and_of_variance_one(pictured):
    encoder = PrincipalComponents(pictured.pixels, 5, CPU)
    codes = encoder(pictured.pixels[range(12)])
    assert torch.allclose(torch.cov(codes.T), torch.eye(5), atol=1e-3) and codes.mean(0).abs().max() < 1e-4
    assert PrincipalComponents(pictured.pixels, 64, CPU)(pictured.pixels[[0]]).shape == (1, 11)  # n − 1


def test_the_update_is_accelerated_spsa(box, pictured, monkeypatch):
    """On a quadratic ½ wᵀHw, three steps by hand."""
    method = searcher(box, pictured, beta=0.6, a=0.002, c=0.02, gamma=0.2, averages=3)
    hessian = torch.linspace(0.1, 2, method.decoder.size)
    monkeypatch.setattr(method, "losses", lambda points, rows: 0.5 * points.square() @ hessian)
    w, m, h = method.w.double(), 0.0, hessian.double()
    for k in (1, 2, 3):
        draw = generator_for(1, "perturbations", k)
        signs = torch.randint(0, 2, (3, len(w)), generator=draw) * 2.0 - 1.0
        delta = (signs * (0.5 + 0.5 * torch.rand(3, len(w), generator=draw))).double()
        size, rate = 0.02 / k**0.2, 0.002 / (k + 1) ** 0.4
        loss = lambda point: 0.5 * (h * point * point).sum()  # noqa: E731
        slopes = [(loss(w + size * u) - loss(w - size * u)) / (2 * size) for u in delta]
        estimate = sum(slope / u for slope, u in zip(slopes, delta)) / 3
        m = estimate if k == 1 else 0.6 * m + estimate
        w = w - rate * (estimate + 0.6 * m)
        method.step(k - 1, 3)
        assert torch.allclose(method.w.double(), w, atol=2e-3 * float(w.abs().max()))


def test_perturbed_passes_leave_the_norms_alone(box, pictured):
    method = searcher(box, pictured)
    w = method.w.clone()
    before = method.decoder.statistics(w, method.codes, method.batch)
    method.step(0, 4)
    assert not torch.equal(method.w, w)
    after = method.decoder.statistics(w, method.codes, method.batch)
    assert all(torch.equal(a, b) for first, second in zip(before, after) for a, b in zip(first, second))


def test_prompted_images_hold_valid_pixel_values(box, pictured):
    method = searcher(box, pictured, p_eps=1)
    pixels, mean, std = (
        pictured.pixels[range(12)],
        *(torch.tensor(box.preprocess_config[key])[:, None, None] for key in ("mean", "std")),
    )
    prompted = method.prompted(10 * method.w[None], pixels, method.codes)[0] * std + mean
    assert prompted.shape == pixels.shape and -1e-6 <= prompted.min() and prompted.max() <= 1 + 1e-6
    assert prompted.min() < 1e-6 and not torch.allclose(prompted, pixels * std + mean, atol=0.1)


def run(loaded, pictured, checkpoint=None, budget=None, **settings):
    box = BlackBox(loaded, CPU, Ledger(budget))
    judge = box.with_ledger(Ledger())
    session = Session(judge=judge, checkpoint=checkpoint, save_every=-1.0)
    fitted = fit(box, pictured, config(**settings), session)
    return fitted, box.ledger.counts, judge.ledger.counts


def test_queries_equal_a_hand_count(loaded, pictured):
    fitted, counts, monitoring = run(loaded, pictured)
    assert counts == {"loss_queries": 4 * 10, "class_prompts": 3, "images": 4 * 10 * 5}
    assert monitoring == {"loss_queries": 0, "class_prompts": 0, "images": 4 * 3}
    assert fitted.learned == ImageDecoder(16, 11).size and len(fitted.history) == 4


@pytest.mark.parametrize("budget, steps", [({"images": 149}, 2), ({"loss_queries": 25}, 2), ({"loss_queries": 60}, 6)])
def test_a_budget_ends_the_search(loaded, pictured, budget, steps):
    fitted, counts, _ = run(loaded, pictured, budget=budget)
    assert fitted.history[-1]["step"] == steps and all(counts[grain] <= limit for grain, limit in budget.items())
    assert counts["loss_queries"] == 10 * steps and counts["images"] == 50 * steps


def test_chunks_of_decoders_change_nothing_but_rounding(box, pictured):
    method = searcher(box, pictured)
    points, rows = method.w + 0.1 * torch.randn(4, method.decoder.size, generator=generator_for(1, "test")), torch.arange(5)
    whole, method.together = method.losses(points, rows), 1
    assert torch.allclose(method.losses(points, rows), whole, atol=1e-5)


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_resumed_fit_equals_an_undisturbed_one(loaded, pictured, stop_after, tmp_path, killed_at):
    undisturbed, path = run(loaded, pictured), tmp_path / "checkpoint.safetensors"
    with killed_at(stop_after):
        run(loaded, pictured, checkpoint=path)
    resumed = run(loaded, pictured, checkpoint=path)
    box, pixels = BlackBox(loaded, CPU), pictured.val_pixels[range(3)]
    for first, second in zip(*[(fitted.last, fitted.best_val) for fitted, *_ in (undisturbed, resumed)]):
        assert torch.equal(first.image_prompt(box, pixels), second.image_prompt(box, pixels))
    assert undisturbed[0].history == resumed[0].history and undisturbed[1:] == resumed[1:]


def test_it_learns(loaded, pictured):
    fitted, *_ = run(loaded, pictured, batch=12, steps=40)
    losses = [row["train_loss"] for row in fitted.history]
    assert np.mean(losses[-10:]) < np.mean(losses[:5])


def test_no_pixels_is_an_error(loaded, pictured):
    bare = dataclasses.replace(pictured, pixels=None)
    with pytest.raises(ValueError, match="pixels of at least one shot"):
        run(loaded, bare)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights of a small transformer of timm, with a head that is not needed."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = timm.create_model("test_vit", pretrained=False)
    path = tmp_path_factory.mktemp("weights") / "test_vit.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_an_encoder_of_timm_from_a_local_file(loaded, pictured, weights, kind):
    if kind == "pt":
        torch.save({"model": load_file(weights)}, weights.with_suffix(".pt"))
    box = BlackBox(loaded, CPU)
    encoder = TimmEncoder("test_vit", weights.with_suffix(f".{kind}"), box.preprocess_config, CPU)
    network = timm.create_model("test_vit", pretrained=False).eval()
    network.load_state_dict(load_file(weights))
    black = -torch.tensor(box.preprocess_config["mean"]) / torch.tensor(box.preprocess_config["std"])
    with torch.no_grad():  # pixel value 0 is −1 after the encoder's own normalisation
        expected = network.forward_head(network.forward_features(torch.full((1, 3, 160, 160), -1.0)), pre_logits=True)
    assert torch.allclose(encoder(black[None, :, None, None].expand(1, 3, 16, 16)), expected, atol=1e-4)
    if kind == "safetensors":
        fitted, *_ = run(loaded, pictured, steps=1, method="blackvip", encoder="test_vit", encoder_weights=str(weights))
        assert fitted.learned == ImageDecoder(16, 64).size


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "levit_128s", "convnext_atto"])
def test_an_encoder_may_have_two_heads_or_one_with_weights_of_its_own(name, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = timm.create_model(name, pretrained=False).eval()
    torch.save({"state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}}, tmp_path / "w.pth")
    config = {key: network.default_cfg[key] for key in ("mean", "std")}
    encoder = TimmEncoder(name, tmp_path / "w.pth", config, CPU)
    pixels = torch.randn(2, 3, encoder.side, encoder.side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(pixels), pre_logits=True)
    assert torch.allclose(encoder(pixels), expected, atol=1e-5)


def test_encoders_that_cannot_be_had_say_why(box, pictured, weights, tmp_path):
    for settings, message in [
        ({"encoder": "test_vitt", "encoder_weights": str(weights)}, "unknown encoder 'test_vitt'.*nearest: test_vit"),
        ({"encoder": "test_vit", "encoder_weights": str(tmp_path / "no.pt")}, "a local file, got .*no.pt"),
        ({"encoder": "test_vit", "encoder_weights": "~/no.pt"}, "a local file, got '~/no.pt'"),
        ({"encoder": "vit_base_patch16_224.no", "encoder_weights": str(weights)}, "cannot be built: Invalid pretrained tag"),
        ({"encoder": "test_vit2", "encoder_weights": str(weights)}, "do not fit encoder 'test_vit2'"),
    ]:
        with pytest.raises(ValueError, match=message):
            searcher(box, pictured, method="blackvip", **settings)
    assert box.ledger.counts == dict.fromkeys(box.ledger.counts, 0)


def test_the_published_encoder_needs_its_weights_before_anything_is_asked():
    with pytest.raises(ValueError, match="'vit_base_patch16_224.mae' needs encoder_weights, a local file.*blackvip_pca"):
        RunConfig("digits", "blackvip")
    with pytest.raises(ValueError, match="'test_vit' needs encoder_weights"):
        config(method="blackvip", encoder="test_vit")
    published = RunConfig("digits", "blackvip", options={"encoder_weights": "mae.pt"}).options
    assert published == RunConfig("digits", "blackvip_pca").options | {
        "encoder": "vit_base_patch16_224.mae",
        "encoder_weights": "mae.pt",
    }


@pytest.mark.parametrize("start", ["context", "template"])
def test_images_are_scored_beside_the_text_at_the_start(box, pictured, start):
    sentences = [f"a photo of a {name}." for name in NAMES]
    words = box.encode_prompts(box.token_embeddings("a")[None], NAMES)[0]
    expected = words if start == "context" else box.encode_texts(sentences)
    assert torch.allclose(searcher(box, pictured, start=start).text, expected, atol=1e-5)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="p_eps must be positive"):
        config(p_eps=0)
    with pytest.raises(ValueError, match="no option 'p_epsilon'"):
        RunConfig("digits", "blackvip_pca", options={"p_epsilon": 1.0})


def test_a_key_names_the_encoder_that_it_runs_with():
    with pytest.raises(ValueError, match="'pca' is for blackvip_pca"):
        config(method="blackvip", encoder="pca")
    with pytest.raises(ValueError, match="all others are for blackvip, got 'test_vit'"):
        config(encoder="test_vit", encoder_weights="here.pt")
