"""Training captions for the text tower, drawn from names and definitions of ImageNet classes and groups of them.

They do not describe photographs: a caption names its anchor, says what kind of thing it is, or defines it.
"""

from __future__ import annotations

import random
import re
from functools import lru_cache

from .lexicon import anchors, lexicon

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
FORMS = {"name": 0.55, "kind": 0.12, "name and definition": 0.08, "definition": 0.10, "words of the definition": 0.15}
BELOW = 0.2  # fraction of captions that name something below an anchor, which has no definition in the file


def draw_pair(draw: random.Random) -> tuple[int, str]:
    """An anchor by its number, and a caption of it or of something below it; each of these is drawn uniformly."""
    if draw.random() < BELOW:
        number, synset = draw.choice(_below())
    else:
        number = draw.randrange(len(anchors()))
        synset = draw.choice(anchors()[number].synsets)
    return number, draw_caption(draw, synset)


@lru_cache(maxsize=1)
def _below() -> list[tuple[int, str]]:
    return [(number, synset) for number, anchor in enumerate(anchors()) for synset in anchor.kinds]


def draw_caption(draw: random.Random, synset: str) -> str:
    """One caption of a synset: its form drawn by `FORMS`, with one of its names, the usual one half of the time."""
    meaning = lexicon()[synset]
    name = meaning.names[0] if draw.random() < 0.5 else draw.choice(meaning.names)
    (form,) = draw.choices(list(FORMS), weights=FORMS.values())
    if form == "kind" and meaning.above:
        return draw.choice(KINDS).format(name, draw.choice(lexicon()[draw.choice(meaning.above)].names))
    if meaning.definition and form == "name and definition":
        return f"{name}: {meaning.definition}"
    if meaning.definition and form == "definition":
        return meaning.definition
    if meaning.definition and form == "words of the definition":
        name = _some_words(draw, meaning.definition) or name
    return draw.choice(TEMPLATES).format(name)


def _some_words(draw: random.Random, definition: str) -> str:
    """One to three content words in their order: so "lake" leads to things defined by it, although no class has this name."""
    words = [word for word in re.findall(r"[a-z]{3,}", definition.lower()) if word not in SILENT]
    chosen = draw.sample(range(len(words)), min(len(words), draw.randint(1, 3)))
    return " ".join(words[index] for index in sorted(chosen))


def all_texts() -> list[str]:
    """All texts that captions are made of, for the vocabulary."""
    told = {synset for anchor in anchors() for synset in (*anchor.synsets, *anchor.kinds)}
    told |= {above for synset in told for above in lexicon()[synset].above}
    meanings = [lexicon()[synset] for synset in sorted(told)]
    return [*TEMPLATES, *KINDS, *(name for each in meanings for name in each.names), *(each.definition for each in meanings)]


@lru_cache(maxsize=1)
def told_words() -> frozenset[str]:
    """All words that captions may hold, in lower case."""
    return frozenset(word for text in all_texts() for word in re.findall(r"[^\W_]+", text.lower()))
