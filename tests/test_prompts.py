"""Prompts: the contexts that tuning starts from, and which texts are read."""

import pytest
import torch

from cbbt.box.prompts import MARKS, fill_template, initial_context


@pytest.mark.parametrize("init, length, words", [
    ("a", 1, "a"), ("a", 3, "a a a"), ("a photo", 2, "a photo"), ("a photo of a", 4, "a photo of a"),
    ("a photo of a", 8, "a photo of a a photo of a"), ("a photo of a", 16, " ".join(4 * ["a photo of a"])),
])  # fmt: skip
def test_initial_words_are_repeated(box, generator, init, length, words):
    context = initial_context(box, init, length, generator=generator)
    assert context.shape == (length, box.context_dim) and torch.equal(context, box.token_embeddings(words))
    specific = initial_context(box, init, length, 3, generator=generator)
    assert torch.equal(specific, context.expand(3, -1, -1))


@pytest.mark.parametrize("init, length, tokens", [("a photo", 3, 2), ("a photo of a", 2, 4), ("a photo of a", 6, 4)])
def test_words_that_do_not_fill_the_context_are_refused(box, generator, init, length, tokens):
    message = f"initial words '{init}' are {tokens} tokens, but the context has {length} vectors: .* divides {length}"
    with pytest.raises(ValueError, match=message):
        initial_context(box, init, length, generator=generator)


def test_numbers_may_stand_for_words(box, generator):
    drawn = initial_context(box, "random", 200, generator=generator)
    assert drawn.std().item() == pytest.approx(0.02, rel=0.05) and not initial_context(box, "zeros", 2, generator=generator).any()


@pytest.mark.parametrize("mark", [*MARKS, "<END_OF_TEXT>"])
def test_a_text_that_a_tokenizer_would_cut_is_refused_and_not_counted(box, mark):
    text = f"a cat {mark} on a mat"
    for ask in (
        lambda: box.encode_prompts(torch.zeros(1, 1, box.context_dim), ["sea", text]),
        lambda: box.encode_texts(["sea", text]),
        lambda: box.token_embeddings(text),
        lambda: fill_template("a photo of a {}.", [text]),
        lambda: fill_template(f"a {{}} {mark}", ["cat"]),
    ):
        with pytest.raises(ValueError, match="holds a start- or end-of-text token"):
            ask()
    assert box.ledger.counts["class_prompts"] == 0
