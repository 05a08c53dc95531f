"""Second meanings: dominoes and maps.

A "three" may be a printed figure or a domino with three dots, a "lake" a view
from the air or a patch of a map. For words with two meanings the surrounding words
matter (CLIP's own examples are "boxer" and "crane"), so a learned context can help.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .fields import SIDE, paint, smooth_noise, step, two_colours
from .textures import TEXTURES

# Where the dots of 0 to 9 sit on a 3 x 3 grid, row by row.
DOTS = {
    "0": "",
    "1": "4",
    "2": "08",
    "3": "048",
    "4": "0268",
    "5": "02468",
    "6": "023568",
    "7": "0234568",
    "8": "01235678",
    "9": "012345678",
}

MAP_SIGNS = {
    "farmland": ((0.72, 0.88, 0.62), "striped"),
    "forest": ((0.86, 0.9, 0.6), "dotted"),
    "meadow": ((0.93, 0.85, 0.62), "speckled"),
    "road": ((0.45, 0.62, 0.88), "wavy"),
    "factory": ((0.72, 0.66, 0.8), "bricks"),
    "pasture": ((0.88, 0.78, 0.55), "zigzagged"),
    "orchard": ((0.6, 0.76, 0.6), "meshed"),
    "houses": ((0.8, 0.78, 0.76), "checkered"),
    "river": ((0.75, 0.85, 0.75), "marbled"),
    "sea": ((0.82, 0.9, 0.95), "scaly"),
    "desert": ((0.97, 0.88, 0.7), "blotchy"),
    "snow": ((0.85, 0.85, 0.92), "cracked"),
}  # kind of land -> colour of its patch on a map and the pattern printed on it


def domino(rng: np.random.Generator, digit: str) -> np.ndarray:
    """RGB picture (SIDE, SIDE, 3) of a square tile with `digit` dots."""
    canvas = Image.new("L", (SIDE, SIDE))
    draw = ImageDraw.Draw(canvas)
    pitch, radius = rng.uniform(14, 19), rng.uniform(4, 6.5)
    middle = SIDE / 2 + rng.uniform(-4, 4, 2)
    for place in DOTS[digit]:
        row, column = divmod(int(place), 3)
        x, y = middle + pitch * np.array([column - 1, row - 1]) + rng.uniform(-1, 1, 2)
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
    return paint(np.asarray(canvas, np.float32) / 255, *two_colours(rng))


def map_patch(rng: np.random.Generator, kind: str) -> np.ndarray:
    """RGB picture (SIDE, SIDE, 3) of a map with the sign of `kind` on a patch of pale paper."""
    fill, pattern = MAP_SIGNS[kind]
    fill = np.array(fill, np.float32) + rng.uniform(-0.04, 0.04, 3).astype(np.float32)
    sign = paint(TEXTURES[pattern](rng), fill, fill * 0.78)
    region = step(smooth_noise(rng, 3), rng.uniform(0.2, 0.4), 0.02)
    return paint(region, sign, (0.97, 0.96, 0.92))
