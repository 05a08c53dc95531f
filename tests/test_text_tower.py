"""The fast text tower against open_clip's own `encode_text`."""

import warnings

import pytest
import torch

from cbbt.box.blackbox import BlackBox
from cbbt.box.ledger import Ledger
from cbbt.box.text_tower import TextTower
from tests.conftest import tiny_loaded

WORDS = "a photo of one very small old grey wild running house cat in the sun".split()
NAMES = [" ".join(WORDS[-n:]) for n in range(1, 9)]  # class names of one to eight tokens

TOWERS = {
    "classic": {},
    "quick gelu": {"quick_gelu": True},
    "custom text": {"custom_text": True},
    "eos pooling": {"custom_text": True, "pool_type": "eos", "eos_id": 49407},
    "linear projection": {"custom_text": True, "proj_bias": True},
    "layer scale": {"ls_init_value": 0.3},
    "not causal": {"custom_text": True, "no_causal_mask": True},
}


def sentence(position: str, words: list[str], name: str) -> str:
    half = {"end": len(words), "middle": len(words) // 2, "front": 0}[position]
    return " ".join(words[:half] + [name] + words[half:]) + "."


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("tower", TOWERS)
def test_prompts_of_plain_words_equal_encode_text(tower, position):
    loaded = tiny_loaded(**TOWERS[tower])
    box = BlackBox(loaded, torch.device("cpu"))
    for length in (1, 4, 16):
        words = (WORDS * 2)[:length]
        context = box.token_embeddings(" ".join(words))
        assert len(context) == length
        ids = loaded.tokenizer([sentence(position, words, name) for name in NAMES])
        expected = loaded.model.encode_text(ids, normalize=True)
        assert torch.allclose(box.encode_prompts(context[None], NAMES, position)[0], expected, atol=1e-5)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("specific", [False, True])
def test_fast_path_equals_full_length_path(loaded, position, specific):
    tower = TextTower(loaded.model, loaded.tokenizer)
    shape = (6, len(NAMES), 3, 32) if specific else (6, 3, 32)
    contexts = torch.randn(shape)
    fast = tower.encode(contexts, NAMES, position)
    tower.causal = False
    assert torch.allclose(fast, tower.encode(contexts, NAMES, position), atol=1e-5)


@pytest.mark.parametrize("tower", ["classic", "not causal"])
def test_a_name_and_its_full_stop_are_read_as_one_text(tower):
    loaded = tiny_loaded(**TOWERS[tower])
    box, names = BlackBox(loaded, torch.device("cpu")), ["Main St.", "c++", "bird (small)", "what?", "U.S.", "plain"]
    ids = loaded.tokenizer([f"a photo of a {name}." for name in names])
    expected = loaded.model.encode_text(ids, normalize=True)
    contexts = box.token_embeddings("a photo of a")[None]
    assert torch.allclose(box.encode_prompts(contexts, names)[0], expected, atol=1e-5)
    stop = loaded.tokenizer.encode(".")
    apart = [loaded.tokenizer.encode(name) + stop != loaded.tokenizer.encode(name + ".") for name in names]
    assert apart == [True, True, True, True, True, False]


def test_the_paths_are_chosen_by_the_mask():
    assert TextTower(tiny_loaded().model, tiny_loaded().tokenizer).causal
    assert not TextTower(tiny_loaded(custom_text=True, no_causal_mask=True).model, tiny_loaded().tokenizer).causal


@pytest.mark.parametrize("max_tokens", [1, 7, 100])
def test_chunking_changes_nothing(loaded, max_tokens):
    contexts = torch.randn(9, 2, 32)
    whole = TextTower(loaded.model, loaded.tokenizer).encode(contexts, NAMES)
    parts = TextTower(loaded.model, loaded.tokenizer, max_tokens=max_tokens).encode(contexts, NAMES)
    assert torch.allclose(whole, parts, atol=1e-6)


def test_class_order_and_underscores_do_not_matter(box):
    contexts = torch.randn(2, 1, 32)
    forward = box.encode_prompts(contexts, NAMES)
    backward = box.encode_prompts(contexts, [name.replace(" ", "_") for name in reversed(NAMES)])
    assert torch.allclose(forward, backward.flip(1), atol=1e-6)


def test_gradients_flow_through_the_white_box_tower(white_box):
    contexts = torch.randn(2, 4, 32, requires_grad=True)
    white_box.encode_prompts(contexts, NAMES)[..., 0].sum().backward()
    assert contexts.grad.shape == contexts.shape and contexts.grad.abs().min() > 0


def test_too_long_a_prompt_is_refused_with_the_room_left(box):
    with pytest.raises(ValueError, match="9 tokens with its full stop, but with 22 context vectors only 8 fit"):
        box.encode_prompts(torch.zeros(1, 22, 32), NAMES)
    with pytest.raises(ValueError, match="has 41 tokens with its full stop, but with 1 context vectors only 29 fit"):
        box.encode_prompts(torch.zeros(1, 1, 32), ["cat " * 40])
    assert box.ledger.counts["class_prompts"] == 0


def test_too_long_a_sentence_is_refused_and_not_counted(box):
    assert box.encode_texts(["cat " * 30]).shape == (1, 24)
    box.ledger.counts["class_prompts"] = 0
    with pytest.raises(ValueError, match="sentence 'a dog cat cat .* has 32 tokens, but only 30 fit into the text tower's 32"):
        box.encode_texts(["a cat.", "a dog " + "cat " * 30])
    with pytest.raises(ValueError, match="holds a start- or end-of-text token"):
        box.encode_texts(["a cat <end_of_text> on a mat"])
    assert box.ledger.counts["class_prompts"] == 0


FOREIGN = ("猫", "собака", "قط", "गाय")
KNOWN = ("crème brûlée", "smörgåsbord", "Curaçao", "São Paulo", "3", "a", "jalapeño", "rock’n’roll", "🐱")


def test_words_that_the_tokenizer_only_spells_are_named_once(box):
    with pytest.warns(UserWarning, match="splits 'собака', 'قط', 'गाय', '猫' into letters or bytes"):
        box.encode_prompts(torch.zeros(1, 1, 32), [*FOREIGN, *KNOWN])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        box.encode_prompts(torch.zeros(1, 1, 32), [*FOREIGN, *KNOWN])
        box.with_ledger(Ledger()).encode_texts([f"a photo of a {name}." for name in KNOWN])
        box.encode_texts(["a photo of a 猫."])
    with pytest.warns(UserWarning, match="splits '犬' into letters or bytes"):
        box.encode_texts(["a photo of a 犬."])


def test_names_are_read_once(box, monkeypatch):
    from cbbt.box.tokens import Tokens

    box.encode_prompts(torch.zeros(1, 1, 32), NAMES)
    monkeypatch.setattr(Tokens, "ids", None)
    box.encode_prompts(torch.zeros(1, 1, 32), NAMES)


def test_a_long_list_of_classes_is_chunked_on_the_full_length_path_too():
    loaded = tiny_loaded(custom_text=True, no_causal_mask=True)
    contexts = torch.randn(2, 8, 3, 32)
    whole = TextTower(loaded.model, loaded.tokenizer).encode(contexts, NAMES)
    parts = TextTower(loaded.model, loaded.tokenizer, max_tokens=70).encode(contexts, NAMES)
    assert torch.allclose(whole, parts, atol=1e-6)


def test_a_tokenizer_without_an_end_of_text_is_refused(loaded):
    with pytest.raises(ValueError, match="function has no start-of-text"):
        TextTower(loaded.model, lambda texts: loaded.tokenizer(texts))
