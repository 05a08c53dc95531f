"""Services that give features alone: a box of two functions, and one for /v1/embeddings."""

import base64
import io
import json
from collections import Counter

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

import cbbt
from cbbt.box.access import ServiceRefused
from cbbt.box.blackbox import load_black_box
from cbbt.box.ledger import GRAINS, Ledger
from cbbt.box.remote import features as services
from cbbt.box.remote.features import FeatureBox, openai_features, png
from cbbt.learning.judging import LOGIT_SCALES, fitting_logit_scale
from cbbt.runs.workbench import Workbench

from .served import serving

QUICK = {"dataset": "digits", "backbone": "our-clip", "shots": 2, "epochs": 2}


@pytest.fixture(scope="module")
def local():
    return load_black_box("mini", device="cpu")


@pytest.fixture
def service(local):
    """The embedded model as a service of features with a preprocessing of its own, that gives numpy arrays of any norm."""
    mean, std = (torch.tensor(local.preprocess_config[name])[:, None, None] for name in ("mean", "std"))
    asked = local.with_ledger(Ledger())
    return FeatureBox(
        "our-clip",
        texts=lambda texts: 3 * asked.encode_texts(texts).numpy(),
        images=lambda pixels: asked.encode_images((pixels - mean) / std, normalize=False).tolist(),
        image_size=local.image_size,
    )


def test_its_features_are_those_of_the_functions(local, service):
    picture = Image.radial_gradient("L").convert("RGB")
    own, other = local.encode_images(local.preprocess(picture)[None]), service.encode_images(service.preprocess(picture)[None])
    assert torch.allclose(own, other, atol=1e-5) and service.embed_dim == local.embed_dim
    assert torch.allclose(service.encode_texts(["a circle."]), local.encode_texts(["a circle."]), atol=1e-6)
    assert service.ledger.counts == {"loss_queries": 0, "class_prompts": 1, "images": 1}


@pytest.mark.parametrize("method, options", [
    ("zero_shot_bare", {"shots": 0}), ("adapter", {}), ("tip_adapter_f", {}), ("lfa", {}), ("gda", {}), ("kernel_ridge", {}),
    ("linear_probe", {}), ("word_search", {"max_loss_queries": 10}),
])  # fmt: skip
def test_what_needs_features_alone_runs_on_it(local, service, method, options):
    record = cbbt.run(cbbt.RunConfig(method=method, **QUICK | options), workbench=Workbench({"our-clip": service}))
    own = cbbt.run(cbbt.RunConfig(method=method, **QUICK | options | {"backbone": "mini"}))
    assert record["queries"]["images"] == own["queries"]["images"]
    assert record["scores"]["test_accuracy"] == pytest.approx(own["scores"]["test_accuracy"], abs=6)  # another logit scale
    assert record["logit_scale"] in [*LOGIT_SCALES, 100.0] and "logit_scale" not in own


@pytest.mark.parametrize("method", ["cbbt", "cbbt_plus", "bbt", "craft", "coop4"])
def test_what_tunes_a_prompt_is_refused_before_its_first_query(service, method):
    with pytest.raises(ServiceRefused, match="the box our-clip takes text, pixels and gives features, and no"):
        cbbt.run(cbbt.RunConfig(method=method, **QUICK), workbench=Workbench({"our-clip": service}))
    assert service.ledger.counts == dict.fromkeys(GRAINS, 0)
    for ask in (lambda: service.token_embeddings("a"), lambda: service.encode_prompts(torch.zeros(1, 1, 8), ["circle"])):
        with pytest.raises(ServiceRefused, match="only features of texts and images"):
            ask()


def test_the_logit_scale_is_the_one_that_fits_the_shots():
    draw = torch.Generator().manual_seed(0)
    text = torch.nn.functional.normalize(torch.randn(5, 16, generator=draw), dim=-1)
    labels = torch.arange(5).repeat(200)
    raw = torch.nn.functional.normalize(text[labels] + 0.35 * torch.randn(1000, 16, generator=draw), dim=-1)
    chosen = fitting_logit_scale(text, 7 * raw, labels)
    losses = [torch.nn.functional.cross_entropy(scale * raw @ text.T, labels) for scale in LOGIT_SCALES]
    assert chosen == LOGIT_SCALES[int(torch.stack(losses).argmin())] and 1 < chosen < 1024
    assert fitting_logit_scale(text, raw[:0], labels[:0]) == 100.0


def test_a_logit_scale_that_is_known_is_kept(local, service):
    service.logit_scale = 20.0
    record = cbbt.run(cbbt.RunConfig(method="adapter", **QUICK), workbench=Workbench({"our-clip": service}))
    assert "logit_scale" not in record and service.logit_scale == 20.0


def test_a_run_is_kept_under_the_service_s_name_and_read_back(service, tmp_path):
    config, bench = cbbt.RunConfig(method="adapter", **QUICK), Workbench({"our-clip": service})
    record = cbbt.run(config, tmp_path, workbench=bench)
    assert cbbt.run(config, tmp_path, workbench=bench) == record and record["origin"]["weights"] == service.fingerprint()


@pytest.mark.parametrize("answer, message", [
    (torch.zeros(3, 4), "of 1 texts"), (torch.zeros(4), "of 1 texts"), (torch.full((1, 4), torch.nan), "not finite"),
])  # fmt: skip
def test_features_of_another_form_are_refused(answer, message):
    with pytest.raises(ValueError, match=message):
        FeatureBox("broken", lambda texts: answer, lambda pixels: answer)


def test_many_are_asked_about_in_parts(local):
    sizes = []

    def texts(texts):
        sizes.append(len(texts))
        return np.ones((len(texts), 4))

    box = FeatureBox("counting", texts, lambda pixels: np.ones((len(pixels), 4)), image_size=8)
    box.encode_texts(["a"] * 300)
    assert sizes == [1, 128, 128, 44] and box.encode_images(torch.rand(70, 3, 8, 8)).shape == (70, 4)


# ---- /v1/embeddings ---------------------------------------------------------------------------------------------------


def test_an_endpoint_gives_the_features_of_its_own_preprocessing(local):
    picture = Image.radial_gradient("L").resize((32, 32)).convert("RGB")
    with serving(local, grants=["texts", "images"]) as (address, ledger):
        box = load_black_box(f"embeddings+{address}/v1", "mini-clip", device="cpu")
        assert box.name == "mini-clip" and box.logit_scale is None and box.image_size == 224
        box = openai_features(f"{address}/v1", "mini-clip", image_size=32)
        assert torch.allclose(box.encode_texts(["a circle."]), local.encode_texts(["a circle."]), atol=1e-6)
        own = local.encode_images(local.preprocess(picture)[None])
        assert torch.allclose(box.encode_images(box.preprocess(picture)[None]), own, atol=1e-6)
        with pytest.raises(ValueError, match="give a name as pretrained"):
            load_black_box(f"embeddings+{address}/v1")


def test_a_run_goes_through_an_endpoint(local):
    with serving(local, grants=["texts", "images"]) as (address, _):
        small = openai_features(f"{address}/v1", "mini-clip", image_size=32)
        config = cbbt.RunConfig("digits", "adapter", "mini-clip", shots=1, epochs=2)
        record = cbbt.run(config, workbench=Workbench({"mini-clip": small}))
        assert record["scores"]["test_accuracy"] > 60 and record["logit_scale"] > 1 and record["traffic"]["requests"] > 10
        with pytest.raises(ServiceRefused, match="no token embeddings"):
            cbbt.run(cbbt.RunConfig("digits", "cbbt", f"embeddings+{address}/v1", "mini-clip", shots=1))


@pytest.mark.parametrize("takes", ["objects", "modality"])
def test_both_forms_of_image_inputs_are_found_out(monkeypatch, takes):
    """Services that take one form alone; rows come in any order."""

    def answer(request):
        asked = json.loads(request.content)
        assert request.headers["Authorization"] == "Bearer secret" and asked["model"] == "clip"
        pictures = "modality" in asked or isinstance(asked["input"][0], dict)
        if pictures and ("modality" in asked) != (takes == "modality"):
            return httpx.Response(422, json={"error": {"message": "no such input"}})
        rows = [{"index": index, "embedding": [float(index), 1.0]} for index in range(len(asked["input"]))]
        return httpx.Response(200, json={"data": rows[::-1]})

    def client(**options):
        return httpx.Client(**{key: options[key] for key in ("base_url", "headers")}, transport=httpx.MockTransport(answer))

    monkeypatch.setattr(services.Connection, "__init__", connected(client))
    box = openai_features("http://service/v1", "clip", "secret", image_size=8)
    raw = box.encode_images(torch.rand(3, 3, 8, 8), normalize=False)
    assert raw.tolist() == [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]


def connected(client):
    """`Connection.__init__` with a client of one's own."""

    def begin(self, address, key=""):
        self.address, self.patience, self.traffic = address, 1.0, Counter()
        self.client = client(base_url=address, headers={"Authorization": f"Bearer {key}"})

    return begin


def test_pixels_travel_as_the_eight_bits_that_they_came_from():
    pixels = torch.randint(0, 256, (3, 5, 7), generator=torch.Generator().manual_seed(1))
    back = Image.open(io.BytesIO(base64.b64decode(png(pixels / 255))))
    assert torch.equal(torch.from_numpy(np.array(back)).permute(2, 0, 1).long(), pixels)
