"""Four small few-shot tasks for the embedded model, without downloads.

`digits` is real handwriting (scikit-learn's copy of the UCI digits); the model was
pre-trained on printed fonts, some of them bent and slanted to imitate it. The other
three are drawn with the same primitives as the pre-training world but look different on
purpose: `landcover` through another sensor, haze and cloud shadows, `textures` as
relief in natural materials under a lamp, `shapes` as pencil or chalk sketches. The
class names are mostly the rarer words of the pre-training captions. Splits are
fixed; `task.draw_shots` draws shots from them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image
from scipy import ndimage

from cbbt.mini_clip import landcover, shapes, textures
from cbbt.mini_clip.fields import SIDE, X, Y, bend, paint, pooled, resample, smooth_noise, step, two_colours
from cbbt.mini_clip.glyphs import glyph

from .cards import EMBEDDED
from .task import DataError, Item, Task

TEMPLATE = "a photo of a {}."  # of all four tasks
TRAIN, VAL = 40, 20  # digits per class; the rest is the test split
DRAWN = {"train": 64, "val": 40, "test": 2000}  # per class, per class, in total
RESTYLED = 1000  # in total
SEED = 20231215

NAMES = {
    "digits": {str(d): w for d, w in enumerate("zero one two three four five six seven eight nine".split())},
    "landcover": {
        "farmland": "annual crop",
        "forest": "forest",
        "meadow": "vegetation",
        "road": "highway",
        "factory": "industrial buildings",
        "pasture": "pasture",
        "orchard": "permanent crop",
        "houses": "residential buildings",
        "river": "river",
        "sea": "lake",
    },
    "textures": {
        "striped": "banded",
        "dotted": "polka-dotted",
        "checkered": "chessboard",
        "meshed": "meshed",
        "bricks": "masonry",
        "zigzagged": "chevron",
        "wavy": "rippled",
        "spiralled": "swirly",
        "concentric": "bullseye",
        "cracked": "crackled",
        "honeycombed": "honeycombed",
        "marbled": "marbled",
        "speckled": "freckled",
        "woven": "basket weave",
        "scaly": "fish scale",
        "blotchy": "stained",
    },
    "shapes": {
        "circle": "disc",
        "square": "box",
        "triangle": "pyramid",
        "star": "star",
        "heart": "valentine",
        "cross": "plus",
        "arrow": "pointer",
        "ring": "donut",
        "crescent": "moon",
        "diamond": "kite",
        "house": "hut",
        "hexagon": "nut",
        "ellipse": "oval",
        "lightning": "bolt",
    },
}  # concept of the world -> class name, in label order

SENSOR = np.array([[0.55, 0.35, 0.1], [0.1, 0.6, 0.3], [0.3, 0.1, 0.6]], np.float32)  # mixes the bands
MATERIALS = np.array(
    [
        [(0.42, 0.27, 0.15), (0.8, 0.62, 0.42)],
        [(0.35, 0.35, 0.36), (0.75, 0.74, 0.7)],
        [(0.5, 0.2, 0.14), (0.83, 0.56, 0.42)],
        [(0.24, 0.27, 0.2), (0.66, 0.66, 0.5)],
        [(0.2, 0.24, 0.32), (0.62, 0.66, 0.72)],
    ],
    np.float32,
)  # dark and light colour of wood, stone, clay, moss and slate


def _magnified(picture: np.ndarray) -> np.ndarray:
    """The middle three quarters of a picture (SIDE, SIDE, 3), enlarged to the whole square."""
    whole = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    margin = SIDE // 8
    part = whole.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(margin, margin, SIDE - margin, SIDE - margin))
    return np.asarray(part, np.float32) / 255


def _landcover(rng: np.random.Generator, kind: str) -> np.ndarray:
    picture = landcover.LANDS[kind](rng)
    picture = _magnified(picture) @ SENSOR.T
    cloud = step(smooth_noise(rng, 3), rng.uniform(0.5, 0.9), 0.3) * rng.uniform(0.2, 0.5)
    haze = rng.uniform(0.1, 0.45)
    return (1 - haze) * picture * (1 - cloud)[..., None] + haze * np.array([0.8, 0.84, 0.9], np.float32)


def _textures(rng: np.random.Generator, kind: str) -> np.ndarray:
    field = resample(textures.TEXTURES[kind](rng), *bend(rng, 2.5, 4))
    dark, light = MATERIALS[rng.integers(len(MATERIALS))]
    height = ndimage.gaussian_filter(field, 1)
    relief = 0.6 * (height - np.roll(height, (2, 2), axis=(0, 1)))
    lamp = 1 + 0.35 * (np.hypot(X - rng.uniform(0, SIDE), Y - rng.uniform(0, SIDE)) / -SIDE + 0.5)
    grain = 0.06 * (smooth_noise(rng, 32) - 0.5)
    return paint(0.2 + 0.6 * field, light, dark) * ((1 + relief + grain) * lamp)[..., None]


def _shapes(rng: np.random.Generator, kind: str) -> np.ndarray:
    polygons = shapes.placed(rng, kind, size=(15, 26), tilt=25)
    hatching = np.sin((X + Y * rng.uniform(-1, 1)) * rng.uniform(0.9, 1.4)) > 0.3
    inside = shapes.filled(polygons) * hatching * rng.uniform(0.1, 0.6)
    ink = np.clip(0.9 * shapes.outlined(polygons, int(rng.integers(2, 5))) + inside, 0, 1)
    ink = resample(ink, *bend(rng, 2.5, 6)) * (0.75 + 0.25 * smooth_noise(rng, 20))
    paper = np.array([0.94, 0.91, 0.83], np.float32) * (0.9 + 0.1 * smooth_noise(rng, 6))[..., None]
    sketch = paint(ink, (0.2, 0.2, 0.25), paper)
    return sketch if rng.random() < 0.75 else 1.05 - sketch  # chalk on a blackboard


_DRAW = {"landcover": _landcover, "textures": _textures, "shapes": _shapes}
# The same classes in the style of the pre-training world: plain colours, the common sensor, printed digits.
_RESTYLED = {
    "digits": lambda rng, kind: paint(glyph(rng, kind, handwritten=False), *two_colours(rng)),
    "landcover": lambda rng, kind: landcover.LANDS[kind](rng),
    "textures": lambda rng, kind: paint(textures.TEXTURES[kind](rng), *two_colours(rng)),
    "shapes": lambda rng, kind: paint(shapes.filled(shapes.placed(rng, kind, size=(15, 26), tilt=25)), *two_colours(rng)),
}


def _drawn_split(name: str, split: str) -> tuple[Item, ...]:
    count = DRAWN[split] if split != "test" else round(DRAWN["test"] / len(NAMES[name]))
    return _drawn(name, _DRAW[name], (SEED, EMBEDDED.index(name), list(DRAWN).index(split)), count)


def _drawn(name: str, draw, stream: tuple[int, ...], count: int) -> tuple[Item, ...]:
    """`count` images per class, each from a generator of its own."""
    return tuple(
        Item(label, class_name, pixels=pooled(draw(np.random.default_rng((*stream, label, number)), kind)))
        for label, (kind, class_name) in enumerate(NAMES[name].items())
        for number in range(count)
    )


@lru_cache(maxsize=len(EMBEDDED))
def restyled(name: str) -> tuple[Item, ...]:
    """About 1000 test images of the task `name` in another style: that of the pre-training world."""
    return _drawn(name, _RESTYLED[name], (SEED, EMBEDDED.index(name), len(DRAWN)), round(RESTYLED / len(NAMES[name])))


def _digit_pixels(image: np.ndarray) -> np.ndarray:
    """One 8 x 8 digit with values 0 to 16 as (32, 32, 3) uint8: enlarged to 28 pixels and padded."""
    large = Image.fromarray((image * 255 / 16).astype(np.uint8)).resize((28, 28), Image.Resampling.BICUBIC)
    return np.repeat(np.pad(np.asarray(large), 2)[..., None], 3, axis=2)


def _digits_splits() -> dict[str, tuple[Item, ...]]:
    from sklearn.datasets import load_digits  # takes a second to import, and only this task needs it

    source, splits = load_digits(), {"train": [], "val": [], "test": []}
    order = np.random.default_rng((SEED, 0)).permutation(len(source.target))
    for label, class_name in enumerate(NAMES["digits"].values()):
        rows = order[source.target[order] == label]
        parts = np.split(rows, [TRAIN, TRAIN + VAL])
        for split, part in zip(splits.values(), parts):
            split += [Item(label, class_name, pixels=_digit_pixels(source.images[row])) for row in part]
    return {split: tuple(items) for split, items in splits.items()}


@lru_cache(maxsize=len(EMBEDDED))
def embedded_task(name: str) -> Task:
    """The task `name` with its full, fixed, disjoint splits; pixels are (32, 32, 3) uint8.

    `digits`: 40 and 20 images per class for training and validation, the other
    1197 for testing; the drawn tasks: 64, 40, and about 2000 in total.
    Raises `DataError` for a name that is not in `EMBEDDED`.
    """
    if name not in EMBEDDED:
        raise DataError(f"no embedded task {name!r}: choose from {', '.join(EMBEDDED)}")
    splits = _digits_splits() if name == "digits" else {split: _drawn_split(name, split) for split in DRAWN}
    names = tuple(NAMES[name].values())
    return Task(name=name, class_names=names, template=TEMPLATE, mirror=name != "digits", **splits)
