"""The language of the embedded model: concepts, their names, and sentences.

Every concept has a main name and rarer synonyms, in the ratio 6 : 2 : 1. The
four tasks mostly use the rarer ones, as real class names are often not the
words that captions use most.
"""

from __future__ import annotations

import numpy as np

from .styles import STYLES

DIGITS = {
    str(digit): (word, str(digit), f"number {word}")
    for digit, word in enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"))
}

CAPITALS = {letter: (f"letter {letter.lower()}", f"capital {letter.lower()}") for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}

SHAPES = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box", "tile"),
    "triangle": ("triangle", "pyramid", "wedge"),
    "star": ("star", "starfish", "badge"),
    "heart": ("heart", "valentine", "love heart"),
    "cross": ("cross", "plus", "plus sign"),
    "arrow": ("arrow", "pointer", "direction sign"),
    "ring": ("ring", "donut", "hoop"),
    "crescent": ("crescent", "moon", "half moon"),
    "diamond": ("diamond", "kite", "rhombus"),
    "house": ("house", "hut", "home"),
    "hexagon": ("hexagon", "nut", "hex"),
    "ellipse": ("ellipse", "oval", "egg"),
    "lightning": ("lightning", "bolt", "flash"),
}

TEXTURES = {
    "striped": ("striped", "banded", "lined"),
    "dotted": ("dotted", "polka-dotted", "spotted"),
    "checkered": ("checkered", "chessboard", "tiled"),
    "meshed": ("grid", "meshed", "netted"),
    "bricks": ("brick wall", "masonry", "bricks"),
    "zigzagged": ("zigzag", "chevron", "herringbone"),
    "wavy": ("wavy", "rippled", "waves"),
    "spiralled": ("spiral", "swirly", "vortex"),
    "concentric": ("concentric", "bullseye", "target"),
    "cracked": ("cracked", "crackled", "broken"),
    "honeycombed": ("honeycomb", "honeycombed", "beehive"),
    "marbled": ("marble", "marbled", "veined"),
    "speckled": ("speckled", "freckled", "flecked"),
    "woven": ("woven", "basket weave", "knitted"),
    "scaly": ("scaly", "fish scale", "shingled"),
    "blotchy": ("blotchy", "stained", "camouflage"),
}

LANDS = {
    "farmland": ("farmland", "annual crop", "crop field"),
    "forest": ("forest", "woodland", "trees"),
    "meadow": ("meadow", "vegetation", "shrubs"),
    "road": ("road", "highway", "motorway"),
    "factory": ("factory", "industrial buildings", "warehouses"),
    "pasture": ("grassland", "pasture", "ranch"),
    "orchard": ("orchard", "permanent crop", "plantation"),
    "houses": ("houses", "residential buildings", "suburb"),
    "river": ("river", "stream", "canal"),
    "sea": ("sea", "lake", "ocean"),
    "desert": ("desert", "sand", "dunes"),
    "snow": ("snow", "ice", "glacier"),
}

COLOURS = {
    "red": (0.85, 0.12, 0.12),
    "orange": (0.95, 0.55, 0.1),
    "yellow": (0.95, 0.9, 0.2),
    "green": (0.15, 0.6, 0.2),
    "blue": (0.12, 0.25, 0.8),
    "purple": (0.5, 0.15, 0.6),
    "pink": (0.95, 0.55, 0.7),
    "brown": (0.45, 0.27, 0.12),
    "black": (0.05, 0.05, 0.05),
    "white": (0.96, 0.96, 0.96),
    "gray": (0.5, 0.5, 0.5),
    "cyan": (0.2, 0.8, 0.85),
}  # RGB in [0, 1]

FRAMES = (
    "a {medium} of a {thing}",
    "a {medium} of the {thing}",
    "this is a {thing}",
    "there is a {thing} in the {medium}",
    "a {thing}",
    "{thing}",
)
MEDIA = {
    "solid": ("photo", "picture", "image"),
    "outline": ("drawing", "sketch", "picture"),
    "glyph": ("photo", "picture", "image"),
    "domino": ("photo", "picture", "image"),
    "texture": ("photo", "close-up photo", "picture"),
    "land": ("satellite photo", "photo", "picture"),
    "map": ("map", "photo", "picture", "drawing"),
}
TEXTURE_NOUNS = ("texture", "surface", "pattern")
OTHER_WORDS = ("centered", "handwritten", "printed", "domino", "aerial", "mapped", ".")


def choose_name(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    """One of a concept's names, drawn with weights 6 : 2 : 1."""
    weights = np.array([6, 2, 1][: len(names)], float)
    return names[rng.choice(len(names), p=weights / weights.sum())]


def sentence(rng: np.random.Generator, thing: str, media: tuple[str, ...], adjectives: list[str]) -> str:
    """A caption about `thing`; the adjectives precede the medium or the thing."""
    frame = FRAMES[rng.integers(len(FRAMES))]
    medium, flaws = media[rng.integers(len(media))], " ".join(adjectives)
    if flaws and "{medium} of" in frame and rng.random() < 0.5:
        medium = f"{flaws} {medium}"
    elif flaws:
        thing = f"{flaws} {thing}"
    return frame.format(thing=thing, medium=medium) + ("." if rng.random() < 0.5 else "")


def known_phrases() -> list[str]:
    """All pieces of text that captions are made of, sorted; the model knows no other words."""
    concepts = (DIGITS, CAPITALS, SHAPES, TEXTURES, LANDS)
    names = [name for concept in concepts for choices in concept.values() for name in choices]
    frames = [frame.replace("{medium}", "").replace("{thing}", "") for frame in FRAMES]
    media = [medium for choices in MEDIA.values() for medium in choices]
    return sorted({*names, *frames, *media, *COLOURS, *STYLES, *TEXTURE_NOUNS, *OTHER_WORDS})
