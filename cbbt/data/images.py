"""Image files: the accepted endings, and conversion to RGB.

Benchmarks are read as CoOp reads them, with Pillow's `convert("RGB")`, so that numbers stay
comparable; it clips 16-bit values and shows the colours under transparent parts.
Images of a user's own folder are converted by `as_rgb`. Neither applies the EXIF
orientation, and both read only the first of several frames or pages.
"""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

# Of the formats that Pillow registers, the still raster images. HEIF is included once pillow_heif has registered it.
FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP",
)  # fmt: skip
DARK = 1 / 16  # an image whose brightest value is below this fraction of its range is nearly black


def image_endings() -> tuple[str, ...]:
    """Endings, in lower case, of the images that the installed Pillow opens."""
    return tuple(sorted(ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS))


def open_rgb(path, own: bool) -> Image.Image:
    """The image of a file as RGB, by `as_rgb` if it is the user's `own`, else as CoOp reads it.

    Raises whatever the decoder raises, and ValueError for an empty file or an unknown range of values.
    """
    if not os.path.getsize(path):
        raise ValueError("the file is empty")
    with Image.open(path) as image:
        return as_rgb(image) if own else image.convert("RGB")


def as_rgb(image: Image.Image) -> Image.Image:
    """An image of any kind as it should look, in RGB with 8 bits.

    16-bit grey is scaled from 0 … 65535 and floats from 0 … 1; transparent parts become white.
    Raises ValueError for values outside this range, and for an image that would be nearly black, such as
    12-bit values in 16 bits, or 0 … 255 in floats: its range is unknown.
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
    if not (low >= 0 and (high == 0 or DARK * top <= high <= top)):  # true for NaN as well
        raise ValueError(
            f"its values run from {low:g} to {high:g}, and their full range is unknown: "
            f"expected 0 to {top}, with a brightest value above {DARK * top:g}; convert the image to 8 bits"
        )
    return Image.fromarray((values * (255 / top)).round().astype(np.uint8)).convert("RGB")
