"""The embedded model: its world, its words, its weights, its pre-training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from cbbt.mini_clip import captions, pretrain, world
from cbbt.mini_clip.landcover import LANDS
from cbbt.mini_clip.model import MiniTokenizer, build_mini_clip, load_mini_clip, vocabulary
from cbbt.mini_clip.shapes import SHAPES
from cbbt.mini_clip.styles import STYLES
from cbbt.mini_clip.symbols import DOTS, MAP_SIGNS
from cbbt.mini_clip.textures import TEXTURES
from cbbt.pretraining import write_tensors

TINY = pretrain.PretrainConfig(pool=256, steps=6, batch=64, warmup=2, seed=3)


@pytest.fixture(scope="module")
def shipped():
    return load_mini_clip()


@pytest.fixture(scope="module")
def tokenizer():
    return MiniTokenizer()


def test_a_pair_depends_on_seed_and_index_alone():
    image, caption = world.sample(0, 17)
    again, same_caption = world.sample(0, 17)
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8
    assert np.array_equal(image, again) and caption == same_caption
    assert not np.array_equal(image, world.sample(1, 17)[0])


def test_the_pool_does_not_depend_on_the_number_of_processes():
    one, captions_one = world.draw_pool(0, 600, workers=1, progress=False)
    two, captions_two = world.draw_pool(0, 600, workers=2, progress=False)
    assert np.array_equal(one, two) and captions_one == captions_two
    assert np.array_equal(one[523], world.sample(0, 523)[0])


@pytest.mark.parametrize(
    "drawn, named",
    [
        (SHAPES, captions.SHAPES),
        (TEXTURES, captions.TEXTURES),
        (LANDS, captions.LANDS),
        (DOTS, captions.DIGITS),
        (MAP_SIGNS, captions.LANDS),
    ],
)
def test_everything_drawn_has_names(drawn, named):
    assert set(drawn) == set(named)


def test_main_names_are_said_most():
    rng = np.random.default_rng(0)
    said = [captions.choose_name(rng, ("main", "second", "third")) for _ in range(2000)]
    assert said.count("main") > 2 * said.count("second") > 2 * said.count("third") > 100


def test_every_style_changes_a_picture():
    picture = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
    for word, change in STYLES.items():
        changed = change(np.random.default_rng(1), picture)
        assert changed.shape == picture.shape and not np.allclose(changed, picture), word


def test_every_caption_can_be_read(tokenizer):
    sentences = [world.sample(5, index)[1] for index in range(400)]
    ids = tokenizer(sentences)
    assert ids.shape == (400, 24) and ids.dtype == torch.long
    assert ids.max() == tokenizer.eot_token_id == tokenizer.vocab_size - 1  # arg-max pooling finds the end
    assert (ids[:, 0] == tokenizer.sot_token_id).all()


def test_ids_are_clips_ids_renumbered(tokenizer):
    import open_clip

    text = "a photo of a polka-dotted texture."
    original = open_clip.SimpleTokenizer(context_length=24)([text])[0]
    assert [vocabulary()[i] for i in tokenizer([text])[0]] == original.tolist()
    assert list(vocabulary()) == sorted(set(vocabulary()))


def test_unknown_words_are_named(tokenizer):
    with pytest.raises(ValueError, match=r"does not know 'giraffe', 'purring'.*known_phrases") as caught:
        tokenizer(["a photo of a giraffe purring."])
    assert "'photo'" not in str(caught.value)


def test_long_texts_are_refused(tokenizer):
    assert tokenizer([" ".join(["a"] * 22)])[0, -1] == tokenizer.eot_token_id
    with pytest.raises(ValueError, match="23 tokens"):
        tokenizer([" ".join(["a"] * 23)])


def test_architecture_and_preprocessing():
    model = build_mini_clip()
    assert 1.9e6 < sum(p.numel() for p in model.parameters()) < 2.1e6
    assert all(p.dtype == torch.float32 for p in model.parameters())
    config = PreprocessCfg(**model.visual.preprocess_cfg)
    assert (config.size, config.interpolation, config.resize_mode) == (32, "bicubic", "shortest")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    transformed = image_transform_v2(config, is_train=False)(Image.fromarray(pixels))
    torch.testing.assert_close(transformed, pretrain.pixel_tensor(pixels[None])[0])


def test_shipped_model_is_frozen_and_float32(shipped):
    assert not shipped.training
    assert not any(p.requires_grad or p.dtype != torch.float32 for p in shipped.parameters())
    assert shipped.logit_scale.exp() > 14


def test_cut_text_features_equal_open_clips(shipped, tokenizer):
    ids = tokenizer(["a photo of a three.", "annual crop", "this is a noisy red kite."])
    torch.testing.assert_close(pretrain.encode_text(shipped, ids), shipped.encode_text(ids), atol=1e-5, rtol=1e-5)


def test_pretraining_reduces_the_loss(tmp_path):
    config = pretrain.PretrainConfig(pool=256, steps=24, batch=64, warmup=4)
    _, history = pretrain.pretrain(config, tmp_path, progress=False)
    losses = [loss for loss, _, _ in history]
    assert len(losses) == 24
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.5


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path):
    whole, history = pretrain.pretrain(TINY, tmp_path / "whole", progress=False)
    pretrain.pretrain(TINY, tmp_path / "parts", progress=False, stop_after=4)
    resumed, resumed_history = pretrain.pretrain(TINY, tmp_path / "parts", progress=False)
    assert history == resumed_history
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values()):
        assert torch.equal(a, b), name
    with pytest.raises(ValueError, match="another run"):
        pretrain.pretrain(replace(TINY, seed=4), tmp_path / "parts", progress=False)


def test_exported_weights_load_again(tmp_path):
    model = build_mini_clip().eval()
    pretrain.export(model, TINY, tmp_path / "weights.safetensors")
    loaded = load_mini_clip(tmp_path / "weights.safetensors")
    for (name, a), b in zip(model.state_dict().items(), loaded.state_dict().values()):
        assert torch.equal(a.half().float() if a.is_floating_point() else a, b), name


def test_wrong_weight_files_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights of the embedded model"):
        load_mini_clip(tmp_path / "absent.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="does not fit the embedded model"):
        load_mini_clip(broken)
    write_tensors({"other": torch.zeros(3)}, tmp_path / "other.safetensors", {})
    with pytest.raises(ValueError, match="does not fit the embedded model"):
        load_mini_clip(tmp_path / "other.safetensors")


@pytest.mark.parametrize("wrong", [dict(batch=0), dict(pool=10), dict(steps=0), dict(lr=0.0), dict(warmup=-1)])
def test_senseless_parameters_are_refused(wrong):
    with pytest.raises(ValueError):
        pretrain.PretrainConfig(**wrong)
