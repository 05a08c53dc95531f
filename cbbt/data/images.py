"""Image files: which endings count, and how a picture becomes RGB.

Benchmarks are read as CoOp reads them, by Pillow's `convert("RGB")`, so that numbers stay
comparable; it cuts 16-bit values off and shows the colours under transparent parts.
Images of a user's own folder are brought to RGB by `as_rgb`. Neither turns an image by its
EXIF orientation, and of several frames or pages the first one counts.
"""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

# Of all that Pillow registers, the still pictures made of pixels. HEIF is there once pillow_heif has registered it.
FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP",
)  # fmt: skip
DARK = 1 / 16  # an image whose brightest value is below this share of its range is nearly black


def image_endings() -> tuple[str, ...]:
    """Endings, in lower case, of the images that the installed Pillow opens."""
    return tuple(sorted(ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS))


def open_rgb(path, own: bool) -> Image.Image:
    """The image of a file as RGB, by `as_rgb` where it is the user's `own`, else as CoOp reads it.

    Raises whatever the decoder does, and ValueError for an empty file or an unknown range of values.
    """
    if not os.path.getsize(path):
        raise ValueError("the file is empty")
    with Image.open(path) as image:
        return as_rgb(image) if own else image.convert("RGB")


def as_rgb(image: Image.Image) -> Image.Image:
    """An image of any kind as it is meant to look, in RGB with 8 bits.

    16-bit grey is scaled from 0 … 65535 and floats from 0 … 1; transparent parts lie on white.
    Raises ValueError for values outside, and for an image that would be nearly black, as one of 12
    bits in 16 or of 0 … 255 in floats: its range is not known.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return _scaled(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    values, top = np.asarray(image, np.float64), 1 if image.mode == "F" else 65535
    low, high = values.min(), values.max()
    if not (low >= 0 and (high == 0 or DARK * top <= high <= top)):  # nor for NaN
        raise ValueError(
            f"its values run from {low:g} to {high:g}, but the range they belong to is unknown: "
            f"expected 0 to {top}, with a brightest value above {DARK * top:g}; convert the image to 8 bits"
        )
    return Image.fromarray((values * (255 / top)).round().astype(np.uint8)).convert("RGB")
