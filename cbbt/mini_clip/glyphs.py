"""Printed digits and capitals in the DejaVu fonts that matplotlib bundles."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from .fields import SIDE, bend, resample, rotated

FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
)


@cache
def _printed(character: str, font: str) -> np.ndarray:
    """One character centred on its ink, (SIDE, SIDE) in [0, 1]; 44 pixels tall type."""
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    canvas = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(canvas).text((SIDE / 2, SIDE / 2), character, fill=255, anchor="mm", font=ImageFont.truetype(str(file), 52))
    ink = np.asarray(canvas, np.float32) / 255
    row, column = ndimage.center_of_mass(ink)
    return ndimage.shift(ink, (SIDE / 2 - row, SIDE / 2 - column), order=1)


def glyph(rng: np.random.Generator, character: str, handwritten: bool) -> np.ndarray:
    """Mask (SIDE, SIDE) in [0, 1] of `character` in a random font, sheared, scaled and rotated.

    `handwritten` also bends the strokes, and slants and stretches them more.
    """
    ink = _printed(character, FONTS[rng.integers(len(FONTS))])
    wildness = 1.8 if handwritten else 1.0
    columns, rows = rotated(np.radians(rng.uniform(-8, 8) * wildness))
    columns = (columns + rows * rng.uniform(-0.15, 0.15) * wildness) * np.float32(rng.uniform(0.9, 1.35))
    rows = rows * np.float32(rng.uniform(0.8, 1.2))
    down, right = rng.uniform(-4, 4, 2).astype(np.float32)
    rows, columns = rows + SIDE / 2 + down, columns + SIDE / 2 + right
    if handwritten:
        bent_rows, bent_columns = bend(rng, rng.uniform(4, 9), int(rng.integers(4, 6)))
        rows, columns = resample(bent_rows, rows, columns), resample(bent_columns, rows, columns)
    thickness = rng.integers(-1, 3)
    if thickness > 0:
        ink = ndimage.grey_dilation(ink, size=(1 + 2 * thickness,) * 2)
    if thickness < 0:
        ink = ndimage.grey_erosion(ink, size=(2, 2))
    return ndimage.map_coordinates(ink, [rows, columns], order=1)
