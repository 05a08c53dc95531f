"""The procedural world that the embedded model is pre-trained on.

`sample(seed, index)` draws one image and its caption. The generator is seeded by
the pair, so that image `index` does not depend on the process or the order in
which it is drawn. Digits come from dominoes and from fonts, three in ten of the latter
bent and slanted to imitate handwriting; there is no real handwriting.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from tqdm.auto import tqdm

from . import captions, landcover, shapes, textures
from .fields import X, Y, bend, paint, pooled, resample, smooth_noise, two_colours
from .glyphs import glyph
from .styles import STYLES
from .symbols import domino, map_patch

# Shares of the pairs.
FAMILIES = {"shape": 0.23, "glyph": 0.28, "domino": 0.09, "texture": 0.2, "land": 0.13, "map": 0.07}
Pair = tuple[np.ndarray, str]


def _pick(rng, choices):
    choices = list(choices)
    return choices[rng.integers(len(choices))]


def _background(rng, front: np.ndarray) -> np.ndarray:
    """A plain colour that stands out against `front`, with a slow change of light."""
    while True:
        colour = rng.random() + 0.25 * (rng.random(3) - 0.5)
        if np.abs(colour - front).max() > 0.35:
            break
    slope = rng.uniform(-0.12, 0.12, 2) / 32
    return np.asarray(colour, np.float32) + (slope[0] * (X - 32) + slope[1] * (Y - 32))[..., None].astype(np.float32)


def _shape(rng):
    kind, colour = _pick(rng, captions.SHAPES), _pick(rng, captions.COLOURS)
    polygons = shapes.placed(rng, kind, size=(15, 27), tilt=20)
    outline = rng.random() < 0.45
    mask = shapes.outlined(polygons, int(rng.integers(3, 8))) if outline else shapes.filled(polygons)
    front = np.clip(np.array(captions.COLOURS[colour]) + rng.uniform(-0.06, 0.06, 3), 0, 1)
    adjectives = [colour] if rng.random() < 0.4 else []
    name = captions.choose_name(rng, captions.SHAPES[kind])
    media = captions.MEDIA["outline" if outline else "solid"]
    return paint(mask, front, _background(rng, front)), name, media, adjectives


def _glyph(rng):
    names = captions.DIGITS if rng.random() < 0.75 else captions.CAPITALS
    character, handwritten = _pick(rng, names), rng.random() < 0.3
    mask = glyph(rng, character, handwritten)
    black_white = [(np.ones(3), np.zeros(3)), (np.zeros(3), np.ones(3))]
    front, back = two_colours(rng) if rng.random() < 0.5 else _pick(rng, black_white)
    adjectives = ["handwritten" if handwritten else "printed"] if rng.random() < 0.5 else []
    return paint(mask, front, back), captions.choose_name(rng, names[character]), captions.MEDIA["glyph"], adjectives


def _domino(rng):
    digit = _pick(rng, captions.DIGITS)
    adjectives = ["domino"] if rng.random() < 0.5 else []
    return domino(rng, digit), captions.choose_name(rng, captions.DIGITS[digit]), captions.MEDIA["domino"], adjectives


def _texture(rng):
    kind = _pick(rng, captions.TEXTURES)
    field = textures.TEXTURES[kind](rng)
    if rng.random() < 0.3:
        field = resample(field, *bend(rng, 3, 4))
    if rng.random() < 0.3:
        field = field * (0.6 + 0.4 * smooth_noise(rng, 3))
    noun = f" {_pick(rng, captions.TEXTURE_NOUNS)}" if rng.random() < 0.6 else ""
    name = captions.choose_name(rng, captions.TEXTURES[kind]) + noun
    return paint(field, *two_colours(rng)), name, captions.MEDIA["texture"], []


def _land(rng):
    kind = _pick(rng, captions.LANDS)
    name = captions.choose_name(rng, captions.LANDS[kind])
    return landcover.LANDS[kind](rng), name, captions.MEDIA["land"], ["aerial"] if rng.random() < 0.25 else []


def _map(rng):
    kind = _pick(rng, captions.LANDS)
    name = captions.choose_name(rng, captions.LANDS[kind])
    return map_patch(rng, kind), name, captions.MEDIA["map"], ["mapped"] if rng.random() < 0.25 else []


_DRAW = {"shape": _shape, "glyph": _glyph, "domino": _domino, "texture": _texture, "land": _land, "map": _map}


def sample(seed: int, index: int, flawed: float = 0.42) -> Pair:
    """Image (32, 32, 3) uint8 and caption number `index` of the world `seed`.

    A fraction `flawed` of the images has one of the named flaws; the caption
    mentions it for two in three of them.
    """
    rng = np.random.default_rng((seed, index))
    family = rng.choice(list(FAMILIES), p=list(FAMILIES.values()))
    picture, name, media, adjectives = _DRAW[family](rng)
    if rng.random() < flawed:
        flaw = _pick(rng, STYLES)
        picture = STYLES[flaw](rng, picture)
        adjectives = [flaw, *adjectives] if rng.random() < 0.65 else adjectives
    return pooled(picture), captions.sentence(rng, name, media, adjectives)


def draw_pool(seed: int, size: int, workers: int = 2, progress: bool = True) -> tuple[np.ndarray, list[str]]:
    """Pairs 0 to `size` - 1 of the world: images (size, 32, 32, 3) uint8 and their captions.

    The result does not depend on `workers`, the number of processes.
    """
    images, sentences = np.empty((size, 32, 32, 3), np.uint8), []
    with ProcessPoolExecutor(workers) as pool:
        pairs = pool.map(partial(sample, seed), range(size), chunksize=250)
        shown = tqdm(pairs, "drawing the world", size, disable=not progress, mininterval=1)
        for index, (image, caption) in enumerate(shown):
            images[index] = image
            sentences.append(caption)
    return images, sentences
