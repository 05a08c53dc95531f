"""Building blocks of the pictures: grids, smooth noise, warps, two-colour paint.

Pictures are drawn as float32 arrays in [0, 1] on a square of `SIDE` pixels and
averaged down to the model's 32 pixels at the end, which removes jagged edges.
Each function takes its randomness from the generator it is given.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

SIDE = 64
Y, X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)


def rotated(angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates (u, v), each (SIDE, SIDE), rotated by `angle` radians about the centre."""
    x, y = X - SIDE / 2, Y - SIDE / 2
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cosine * x + sine * y, cosine * y - sine * x


def smooth_noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Noise in [0, 1], (SIDE, SIDE), whose features are about SIDE / cells pixels wide."""
    coarse = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
    return np.clip(np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)), 0, 1)


def bend(rng: np.random.Generator, strength: float, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates (rows, columns) displaced by smooth noise of at most `strength` pixels."""
    down, right = (2 * strength * (smooth_noise(rng, cells) - 0.5) for _ in range(2))
    return Y + down, X + right


def resample(picture: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """`picture`, (SIDE, SIDE) or (SIDE, SIDE, 3), read at fractional pixel positions."""
    if picture.ndim == 2:
        return ndimage.map_coordinates(picture, [rows, columns], order=1, mode="reflect")
    return np.stack([resample(picture[..., c], rows, columns) for c in range(3)], axis=-1)


def step(field: np.ndarray, threshold: float = 0.5, softness: float = 0.1) -> np.ndarray:
    """A soft threshold: 0 well below it, 1 well above, a ramp `softness` wide between."""
    return np.clip((field - threshold) / softness + 0.5, 0, 1)


def paint(mask: np.ndarray, front, back) -> np.ndarray:
    """An RGB picture (SIDE, SIDE, 3): `front` where `mask` is 1, `back` where it is 0."""
    front, back = np.asarray(front, np.float32), np.asarray(back, np.float32)
    return back + mask.astype(np.float32)[..., None] * (front - back)


def two_colours(rng: np.random.Generator, contrast: float = 0.35) -> tuple[np.ndarray, np.ndarray]:
    """Two random colours whose brightness differs by at least `contrast`."""
    while True:
        pair = rng.random((2, 3), dtype=np.float32)
        if abs(pair[0].mean() - pair[1].mean()) >= contrast:
            return pair[0], pair[1]


def pooled(picture: np.ndarray) -> np.ndarray:
    """The finished picture, (32, 32, 3) uint8: 2 x 2 averages of a (64, 64, 3) one in [0, 1]."""
    rows = picture[::2] + picture[1::2]
    mean = (rows[:, ::2] + rows[:, 1::2]) / 4
    return (np.clip(mean, 0, 1) * 255 + 0.5).astype(np.uint8)
