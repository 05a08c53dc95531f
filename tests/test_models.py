"""Loading weights: every form that users have, and refusal of what does not fit."""

import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file

import cbbt
from cbbt.box.blackbox import BlackBox
from cbbt.box.models import ModelError, load_model
from cbbt.box.text_tower import TextTower
from cbbt.box.weights import weights_file
from tests.conftest import TEXT, VISION

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def architectures(tmp_path_factory):
    """Small architectures under names of their own, in open_clip's registry."""
    folder = tmp_path_factory.mktemp("architectures")
    wider = TEXT | {"width": 64}
    for name, config in {
        "tiny-clip": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT},
        "tiny-clip-wider": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": wider},
        "tiny-clip-longer": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT | {"context_length": 40}},
        "tiny-clip-quick": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT, "quick_gelu": True},
        "tiny-clip-custom": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT, "custom_text": True},
        "tiny-coca": {
            "embed_dim": 24, "vision_cfg": VISION | {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
            "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True}, "custom_text": True,
            "multimodal_cfg": {"context_length": 32, "width": 32, "heads": 4, "layers": 1, "attn_pooler_heads": 4},
        },
    }.items():  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


@pytest.fixture
def tags(monkeypatch):
    """A function that publishes tags of "tiny-clip": tag → what sets its training apart from OpenAI's."""

    def publish(**tags):
        published = {tag: open_clip.pretrained._pcfg(**training) for tag, training in tags.items()}
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-clip", published)

    return publish


DIFFERENT = {
    "openai": {"quick_gelu": True},
    "plain": {},
    "grey": {"mean": (0.5,) * 3, "std": (0.5,) * 3},
    "squashed": {"quick_gelu": True, "resize_mode": "squash", "interpolation": "bilinear"},
}


@pytest.fixture
def weights():
    """Weights that differ from the random ones every load starts with."""
    state = open_clip.create_model("tiny-clip").state_dict()
    generator = torch.Generator().manual_seed(5)
    return {key: value + 0.05 * torch.randn(value.shape, generator=generator) for key, value in state.items()}


def saved(weights, path):
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in weights.items()}, path)
    else:
        torch.save(weights, path)
    return path


def loads(name, path):
    return load_model(name, path, CPU).model.state_dict()


@pytest.mark.parametrize("file", ["w.pt", "w.bin", "w.safetensors"])
@pytest.mark.parametrize("name", ["tiny-clip", "tiny-clip-custom"])
def test_state_dicts_load_whole(weights, tmp_path, file, name):
    state = loads(name, saved(weights, tmp_path / file))
    own = {key.removeprefix("text."): value for key, value in state.items()}
    assert own.keys() == weights.keys() and all(torch.equal(own[key], weights[key]) for key in own)


def test_half_precision_and_training_checkpoints_load(weights, tmp_path):
    half = {f"module.{key}": value.half() for key, value in weights.items()}
    torch.save({"epoch": 3, "state_dict": half}, tmp_path / "epoch_3.pt")
    state = loads("tiny-clip", tmp_path / "epoch_3.pt")
    assert all(value.dtype == torch.float32 for value in state.values())
    assert torch.equal(state["text_projection"], weights["text_projection"].half().float())


@pytest.mark.filterwarnings("ignore")  # of tracing
@pytest.mark.parametrize("quick", [True, False])  # OpenAI's archives, and others'
def test_an_archive_loads_with_its_own_activation(weights, tmp_path, quick):
    model = open_clip.create_model("tiny-clip", force_quick_gelu=quick).eval()
    model.load_state_dict(weights)
    model.register_buffer("input_resolution", torch.tensor(16))  # OpenAI's archives hold such extras
    example = (torch.ones(1, 3, 16, 16), torch.arange(32)[None])
    torch.jit.save(torch.jit.trace(model, example, check_trace=False), tmp_path / "archive.pt")
    loaded = load_model("tiny-clip", tmp_path / "archive.pt", CPU).model
    assert torch.equal(loaded.state_dict()["text_projection"], weights["text_projection"])
    with torch.no_grad():
        assert torch.allclose(loaded.encode_text(example[1]), model.encode_text(example[1]), atol=1e-6)
        assert torch.allclose(loaded.encode_image(example[0]), model.encode_image(example[0]), atol=1e-6)
    if not quick:
        with pytest.raises(ModelError, match="archive.pt were trained with GELU, but 'tiny-clip-quick' uses QuickGELU"):
            load_model("tiny-clip-quick", tmp_path / "archive.pt", CPU)


@pytest.mark.parametrize(
    "name, message",
    [
        ("tiny-clip-wider", r"do not fit 'tiny-clip-wider'; shape: .*expected .*64.* got .*32"),
        ("tiny-clip-longer", r"shape: positional_embedding: expected \(40, 32\), got \(32, 32\)"),
    ],
)
def test_other_shapes_are_refused_not_resized(weights, tmp_path, name, message):
    with pytest.raises(ModelError, match=message):
        load_model(name, saved(weights, tmp_path / "w.pt"), CPU)


def test_missing_and_surplus_weights_are_named(weights, tmp_path):
    weights["extra.bias"] = weights.pop("ln_final.bias")
    with pytest.raises(ModelError, match="missing: ln_final.bias; not in the model: extra.bias"):
        load_model("tiny-clip", saved(weights, tmp_path / "w.pt"), CPU)


@pytest.mark.parametrize("content", [b"not weights", b""])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot read weights from .*w.pt: \w"):
        load_model("tiny-clip", tmp_path / "w.pt", CPU)


def test_weights_that_diverged_are_refused(weights, tmp_path):
    weights["text_projection"][0, 0] = float("nan")
    with pytest.raises(ModelError, match="w.pt do not fit 'tiny-clip'; not finite: text_projection"):
        load_model("tiny-clip", saved(weights, tmp_path / "w.pt"), CPU)


def test_what_is_no_state_dict_is_named(weights, tmp_path):
    torch.save({"optimizer": {}, "my_model": weights}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="w.pt should hold weights alone, as .*, got optimizer, my_model"):
        load_model("tiny-clip", tmp_path / "w.pt", CPU)


def test_unknown_names_and_tags_are_answered_with_choices():
    with pytest.raises(ModelError, match="unknown backbone 'ViT-B/16'; nearest: ViT-B-16"):
        load_model("ViT-B/16", None, CPU)
    for name in ("vit_b_16", "VIT-B16"):  # as people remember it
        with pytest.raises(ModelError, match="nearest: ViT-B-16"):
            load_model(name, None, CPU)
    for tag in ("opeani", 3):
        with pytest.raises(ModelError, match="neither a file nor a tag of 'RN50'; tags: openai"):
            load_model("RN50", tag, CPU)
    for name in ("openai", "~nobody/w.safetensors"):
        with pytest.raises(ModelError, match=f"no weights .* at {name}.*'default', a file, or None"):
            load_model("mini", name, CPU)


@pytest.mark.parametrize("name", ["roberta-ViT-B-32", "ViT-B-16-SigLIP"])
def test_text_towers_without_clips_tokens_are_refused(name):
    with pytest.raises(ModelError, match=f"{name}.* reads text with .*, so its prompts cannot hold a context; choose"):
        load_model(name, None, CPU)


def test_a_home_folder_may_be_abbreviated(weights, tmp_path, monkeypatch):
    saved(weights, tmp_path / "w.pt")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert torch.equal(loads("tiny-clip", "~/w.pt")["text_projection"], weights["text_projection"])
    assert weights_file("~/w.pt") == weights_file("openai@~/w.pt") == tmp_path / "w.pt"
    assert [weights_file(name) for name in (None, "openai", "", "openai@")] == [None] * 4


def trained_with(pretrained, name="tiny-clip"):
    loaded = load_model(name, pretrained, CPU)
    quick = any(type(part) is open_clip.transformer.QuickGELU for part in loaded.model.modules())
    return {"quick_gelu": quick} | {key: loaded.preprocess_config[key] for key in ("mean", "std", "interpolation", "resize_mode")}


def test_a_file_whose_training_the_tags_do_not_tell_is_refused(weights, tags, tmp_path):
    tags(**DIFFERENT)
    path = saved(weights, tmp_path / "w.pt")
    with pytest.raises(
        ModelError, match="tags of 'tiny-clip' differ in .*: use pretrained='TAG@.*openai, plain, grey, squashed"
    ) as e:
        load_model("tiny-clip", path, CPU)
    assert all(key in str(e.value) for key in ("quick_gelu", "mean", "std", "interpolation", "resize_mode"))
    for tag in DIFFERENT:
        cfg = open_clip.get_pretrained_cfg("tiny-clip", tag)
        assert trained_with(f"{tag}@{path}") == {"quick_gelu": False} | {
            k: v for k, v in cfg.items() if k not in ("url", "hf_hub")
        }
    with pytest.raises(ModelError, match="'metaclip' is no tag of 'tiny-clip'; tags: openai"):
        load_model("tiny-clip", f"metaclip@{path}", CPU)


def test_a_file_is_taken_where_all_tags_agree(weights, tags, tmp_path):
    tags(one=DIFFERENT["squashed"], other=DIFFERENT["squashed"])
    training = trained_with(saved(weights, tmp_path / "w.pt"))
    assert training["quick_gelu"] and (training["resize_mode"], training["interpolation"]) == ("squash", "bilinear")


def hub_folder(weights, folder, **changes):
    """A folder as open_clip writes it for the hub."""
    folder.mkdir()
    saved(weights, folder / "open_clip_model.safetensors")
    config = open_clip.get_model_config("tiny-clip") | {"quick_gelu": True}
    images = {"mean": [0.4, 0.5, 0.6], "std": [0.2] * 3, "resize_mode": "longest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": images} | changes))
    return folder


def test_the_configuration_beside_a_file_tells_its_training(weights, tags, tmp_path):
    tags(**DIFFERENT)
    folder, told = hub_folder(weights, tmp_path / "hub"), {"quick_gelu": True, "mean": (0.4, 0.5, 0.6), "std": (0.2,) * 3}
    for pretrained in (folder, folder / "open_clip_model.safetensors"):
        assert trained_with(pretrained) == told | {"interpolation": "bicubic", "resize_mode": "longest"}
    assert trained_with(f"grey@{folder}")["mean"] == (0.5,) * 3  # what is named goes before


@pytest.mark.parametrize("changes, message", [
    ({"model_cfg": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT | {"heads": 2}}}, "text_cfg.heads differ"),
    ({"model_cfg": {}}, "expected open_clip's model_cfg and preprocess_cfg"),
    ({"preprocess_cfg": {}}, "expected open_clip's model_cfg and preprocess_cfg, got KeyError"),
    ({"preprocess_cfg": {"mean": [0, 0, 0], "std": [1, 1, 0]}}, "preprocess_cfg, got ValueError"),
    ({"preprocess_cfg": {"mean": [0] * 3, "std": [1] * 3, "resize_mode": "crop"}}, "preprocess_cfg, got ValueError.*crop"),
])  # fmt: skip
def test_a_configuration_that_does_not_fit_is_refused(weights, tmp_path, changes, message):
    with pytest.raises(ModelError, match=message):
        load_model("tiny-clip", hub_folder(weights, tmp_path / "hub", **changes), CPU)


def test_a_folder_holds_one_file_of_weights_or_says_which(weights, tmp_path):
    (tmp_path / "d").mkdir()
    with pytest.raises(ModelError, match="folder .*d should hold one file of weights .*got none"):
        load_model("tiny-clip", tmp_path / "d", CPU)
    (tmp_path / "d" / "notes.txt").touch()
    first = saved(weights, tmp_path / "d" / "a.bin")
    assert weights_file(tmp_path / "d") == first and "ln_final.bias" in loads("tiny-clip", tmp_path / "d")
    saved(weights, tmp_path / "d" / "b.safetensors")
    with pytest.raises(ModelError, match="got a.bin, b.safetensors: name the file"):
        load_model("tiny-clip", tmp_path / "d", CPU)


@pytest.mark.parametrize("wrap", ["_orig_mod.{}", "module._orig_mod.{}", "_orig_mod.module.{}", "module.module.{}"])
@pytest.mark.parametrize("key", ["state_dict", "model", None])
def test_what_training_wraps_around_weights_is_taken_off(weights, tmp_path, wrap, key):
    wrapped = {wrap.format(name): value for name, value in weights.items()}
    torch.save({key: wrapped, "epoch": 3} if key else wrapped, tmp_path / "w.pt")
    assert torch.equal(loads("tiny-clip", tmp_path / "w.pt")["text_projection"], weights["text_projection"])


def test_a_tower_compiled_by_itself_loads(weights, tmp_path):
    wrapped = {name.replace("visual.", "visual._orig_mod."): value for name, value in weights.items()}
    assert torch.equal(loads("tiny-clip", saved(wrapped, tmp_path / "w.pt"))["visual.proj"], weights["visual.proj"])


def test_weights_in_other_forms_are_named(weights, tmp_path):
    theirs = saved(
        {"text_model.final_layer_norm.bias": torch.zeros(4), "logit_scale": torch.ones(1)}, tmp_path / "model.safetensors"
    )
    with pytest.raises(ModelError, match="form of Hugging Face's transformers; take open_clip_model.safetensors"):
        load_model("tiny-clip", theirs, CPU)
    (tmp_path / "pointer.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ModelError, match="pointer.bin: it is a Git LFS pointer"):
        load_model("tiny-clip", tmp_path / "pointer.bin", CPU)
    torch.save(open_clip.create_model("tiny-clip"), tmp_path / "whole.pt")
    with pytest.raises(ModelError, match="cannot read weights from .*whole.pt"):
        load_model("tiny-clip", tmp_path / "whole.pt", CPU)


@pytest.mark.parametrize("name", ["hf-hub:laion/CLIP-ViT-B-32", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "local-dir:/somewhere"])
def test_names_of_the_hub_are_answered_with_the_file_to_take(name):
    with pytest.raises(ModelError, match="names weights, not an architecture: .*open_clip_model.safetensors"):
        load_model(name, None, CPU)
    if not name.startswith("local-dir"):
        with pytest.raises(ModelError, match="neither a file nor a tag of 'ViT-B-32'.*take open_clip_model.safetensors"):
            load_model("ViT-B-32", name, CPU)


def test_the_real_tags_of_openais_architectures_agree_for_their_archives():
    """Of the tags with QuickGELU, which is what an archive of OpenAI's shows."""
    for name in ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336"):
        tags = [open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
        quick = {str({k: v for k, v in tag.items() if k not in ("url", "hf_hub")}) for tag in tags if tag.get("quick_gelu")}
        assert len(quick) == 1, name


@pytest.mark.filterwarnings("ignore")  # of tracing
def test_an_archives_code_leaves_the_tags_of_its_activation(weights, tags, tmp_path):
    model = open_clip.create_model("tiny-clip", force_quick_gelu=True).eval()
    example = (torch.ones(1, 3, 16, 16), torch.arange(32)[None])
    path = tmp_path / "archive.pt"
    torch.jit.save(torch.jit.trace(model, example, check_trace=False), path)
    tags(openai={"quick_gelu": True}, plain={}, grey=DIFFERENT["grey"])
    assert trained_with(path)["quick_gelu"]
    with pytest.raises(ModelError, match="archive.pt uses QuickGELU, but plain of 'tiny-clip' the other activation"):
        load_model("tiny-clip", f"plain@{path}", CPU)
    tags(**DIFFERENT)
    with pytest.raises(ModelError, match="differ in interpolation, resize_mode: .* one of openai, squashed"):
        load_model("tiny-clip", path, CPU)


def test_fingerprint_tells_weights_apart(weights, tmp_path):
    first = load_model("tiny-clip", saved(weights, tmp_path / "a.pt"), CPU).fingerprint()
    assert first == load_model("tiny-clip", tmp_path / "a.pt", CPU).fingerprint()
    weights["ln_final.bias"] = weights["ln_final.bias"] + 1e-3
    assert first != load_model("tiny-clip", saved(weights, tmp_path / "b.pt"), CPU).fingerprint()


def test_fingerprint_tells_activations_apart(weights, tags, tmp_path):
    tags(openai={"quick_gelu": True}, plain={})
    path = saved(weights, tmp_path / "w.pt")
    assert len({load_model("tiny-clip", f"{tag}@{path}", CPU).fingerprint() for tag in ("openai", "plain")}) == 2


def test_the_embedded_models_fingerprint_is_that_of_shipped_records():
    assert load_model("mini", "default", CPU).fingerprint() == "248168cf92651274"


def test_coca_keeps_a_place_for_its_class_token():
    box = cbbt.load_black_box("tiny-coca", None, device="cpu")  # 32 tokens and a class token
    assert box.encode_texts(["a " * 30]).shape == (1, 24)
    with pytest.raises(ValueError, match="has 31 tokens, but only 30 fit into the text tower's 32 positions"):
        box.encode_texts(["a " * 31])
    assert box.encode_prompts(torch.zeros(1, 28, 32), ["cat"]).shape == (1, 1, 24)
    with pytest.raises(ValueError, match="with 29 context vectors only 1 fit into the text tower's 32 positions"):
        box.encode_prompts(torch.zeros(1, 29, 32), ["cat"])


@pytest.mark.parametrize("name, context_dim, embed_dim", [("RN50", 512, 1024), ("ViT-B-16", 512, 512)])
def test_full_size_models_behind_the_same_wall(name, context_dim, embed_dim):
    box = cbbt.load_black_box(name, pretrained=None, device="cpu")
    assert (box.context_dim, box.embed_dim, box.image_size) == (context_dim, embed_dim, 224)
    assert box.encode_images(torch.zeros(1, 3, 224, 224)).shape == (1, embed_dim)


@pytest.fixture(scope="module", params=["RN50", "ViT-B-16"])
def full_size(request):
    loaded = load_model(request.param, None, CPU)
    return loaded, BlackBox(loaded, CPU)


NAMES = [  # of one to eight tokens
    "river", "annual crop", "annual crop land", "one very old house", "sea or lake or river",
    "herbaceous vegetation land", "boeing 7 3 7 2 0", "one very small old grey house cat here",
]  # fmt: skip
WORDS = "a photo of one very small old grey wild running house cat in the sun today".split()


def test_the_names_have_one_to_eight_tokens(full_size):
    loaded, box = full_size
    lengths = [len(box.token_embeddings(name)) for name in NAMES]
    assert set(lengths) >= {1, 2, 3, 4, 5, 8} and max(lengths) == 8


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("length", [1, 4, 16])
def test_full_size_prompts_equal_open_clips_own_function(full_size, length, position):
    loaded, box = full_size
    words = WORDS[:length]
    context = box.token_embeddings(" ".join(words))
    half = {"end": length, "middle": length // 2, "front": 0}[position]
    ids = loaded.tokenizer([" ".join(words[:half] + [name] + words[half:]) + "." for name in NAMES])
    with torch.no_grad():
        expected = loaded.model.encode_text(ids, normalize=True)
    assert torch.allclose(box.encode_prompts(context[None], NAMES, position)[0], expected, atol=1e-5)


def test_many_contexts_at_once_equal_each_alone_by_open_clips_path(full_size):
    loaded, box = full_size
    generator = torch.Generator().manual_seed(0)
    contexts = 0.02 * torch.randn(256, 4, box.context_dim, generator=generator)
    together = box.encode_prompts(contexts, NAMES)
    tower = TextTower(loaded.model, loaded.tokenizer)
    tower.causal = False  # open_clip's encode_text, the context put in the place of four tokens
    for n in (0, 127, 255):
        with torch.no_grad():
            alone = tower.encode(contexts[n : n + 1], NAMES)[0]
        assert torch.allclose(together[n], alone, atol=1e-5)


def test_full_size_images_equal_open_clips_own_function(full_size):
    loaded, box = full_size
    pixels = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = loaded.model.encode_image(pixels, normalize=True)
    assert torch.allclose(box.encode_images(pixels), expected, atol=1e-5)


@pytest.mark.parametrize(
    "name, causal",
    [
        ("EVA02-B-16", True),
        ("convnext_base", True),
        ("ViTamin-S", True),
        ("coca_ViT-B-32", False),  # a class token behind the text
        ("MobileCLIP-S1", False),  # no causal mask
    ],
)
def test_other_families_equal_their_own_encode_text(name, causal):
    loaded = load_model(name, None, CPU)
    tower = TextTower(loaded.model, loaded.tokenizer)
    assert tower.causal == causal
    context = tower.embed(tower.tokens.ids("a photo of one"))
    ids = loaded.tokenizer([f"a photo of one {class_name}." for class_name in NAMES[:3]])
    with torch.no_grad():
        expected = loaded.model.encode_text(ids, normalize=True)
        assert torch.allclose(tower.encode(context[None], NAMES[:3])[0], expected, atol=1e-5)
