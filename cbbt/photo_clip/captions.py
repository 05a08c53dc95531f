"""What the text tower was told of an ImageNet class or a kind of them: captions drawn from names and definitions.

No photograph is described: a caption names its anchor, says what kind of thing it is, or defines it.
"""

from __future__ import annotations

import re

import numpy as np

from .lexicon import Anchor, lexicon

TEMPLATES = (
    "a photo of a {}.", "a photo of the {}.", "a photo of {}.", "a {}.", "the {}.", "{}.", "an image of a {}.",
    "a picture of {}.", "a close-up photo of a {}.", "a blurry photo of a {}.", "a bright photo of the {}.",
    "a dark photo of a {}.", "a low resolution photo of a {}.", "a photo of many {}.", "a photo of my {}.",
    "a photo of one {}.", "a good photo of the {}.", "a cropped photo of a {}.", "a centered photo of {}.",
    "a drawing of a {}.", "an aerial photo of {}.", "a satellite image of {}.", "a view of {} from above.",
)  # fmt: skip
KINDS = ("a photo of a {}, a type of {}.", "{}, a kind of {}.", "a {}, which is a {}.")
SILENT = frozenset(
    "the and for with from that its are has have used which into such than not but also any one two usually having being was "
    "can may often some their them this these those very more most other".split()
)
SHARES = {"name": 0.55, "kind": 0.12, "name and definition": 0.08, "definition": 0.10, "words of the definition": 0.15}


def draw_caption(rng: np.random.Generator, anchor: Anchor) -> str:
    """One caption of an anchor: of a form drawn by `SHARES`, with one of its names, the usual one half of the time."""
    synset = lexicon()[rng.choice(anchor.synsets)]
    name = synset.names[0] if rng.random() < 0.5 else str(rng.choice(synset.names))
    form = rng.choice(list(SHARES), p=list(SHARES.values()))
    if form == "kind" and synset.above:
        above = lexicon()[rng.choice(synset.above)]
        return str(rng.choice(KINDS)).format(name, rng.choice(above.names))
    if form == "name and definition":
        return f"{name}: {synset.definition}"
    if form == "definition":
        return synset.definition
    if form == "words of the definition":
        name = _some_words(rng, synset.definition) or name
    return str(rng.choice(TEMPLATES)).format(name)


def _some_words(rng: np.random.Generator, definition: str) -> str:
    """One to three content words in their order: so "lake" leads to what is defined by it, though no class is called so."""
    words = [word for word in re.findall(r"[a-z]{3,}", definition.lower()) if word not in SILENT]
    count = min(len(words), int(rng.integers(1, 4)))
    return " ".join(words[index] for index in sorted(rng.choice(len(words), count, replace=False)))


def all_texts() -> list[str]:
    """Everything that captions are made of, for the vocabulary."""
    synsets = lexicon().values()
    return [*TEMPLATES, *KINDS, *(name for each in synsets for name in each.names), *(each.definition for each in synsets)]
