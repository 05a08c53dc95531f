"""Named flaws of a picture, such as "blurry" or "faded"."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from .fields import SIDE


def _blurry(rng, picture):
    sigma = rng.uniform(1.2, 2.2)
    return ndimage.gaussian_filter(picture, (sigma, sigma, 0))


def _noisy(rng, picture):
    return picture + rng.uniform(0.06, 0.14) * rng.standard_normal(picture.shape, dtype=np.float32)


def _dark(rng, picture):
    return picture * rng.uniform(0.35, 0.6)


def _bright(rng, picture):
    return 1 - (1 - picture) * rng.uniform(0.4, 0.65)


def _pixelated(rng, picture):
    coarse = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8)).resize(
        (int(rng.integers(11, 17)),) * 2, Image.Resampling.BOX
    )
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.NEAREST), np.float32) / 255


def _gray(rng, picture):
    return np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)


def _faded(rng, picture):
    return rng.uniform(0.5, 0.75) + (picture - 0.5) * rng.uniform(0.3, 0.55)


STYLES = {
    "blurry": _blurry,
    "noisy": _noisy,
    "dark": _dark,
    "bright": _bright,
    "pixelated": _pixelated,
    "gray": _gray,
    "faded": _faded,
}  # word -> function of (generator, picture (SIDE, SIDE, 3)) that returns the flawed picture
