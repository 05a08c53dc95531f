"""Shifted test images: the same task under other conditions.

Four operations on an image before preprocessing, the same for images of every size:
strengths are fractions of the range of values or of the image's sides. Each image has a
generator of its own, which depends only on the image, so that a shifted split is the
same in every run. A fifth shift, "style", redraws the embedded tasks
(`cbbt.data.embedded.restyled`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image
from scipy import ndimage

from cbbt.seeding import generator_for

from .task import Item, identity

SEED = 20240601
NOISE = 0.1  # standard deviation, of values in [0, 1]
BLUR = 1 / 32  # standard deviation of the Gaussian, of the shorter side
TURN = 30.0  # degrees, in either direction
SHRINK = 0.75  # of either side; the border left by rotation and shrinking is filled by reflection


def _noise(picture: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    return picture + NOISE * draw.standard_normal(picture.shape, dtype=np.float32)


def _blur(picture: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    sigma = BLUR * min(picture.shape[:2])
    return ndimage.gaussian_filter(picture, (sigma, sigma, 0))


def _rotation(picture: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    angle = TURN if draw.random() < 0.5 else -TURN
    return ndimage.rotate(picture, angle, reshape=False, order=1, mode="reflect")


def _scale(picture: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    middle = (np.array(picture.shape) - 1) / 2
    step = np.array([1 / SHRINK, 1 / SHRINK, 1])
    return ndimage.affine_transform(picture, step, middle - step * middle, order=1, mode="reflect")


OPERATIONS = {"noise": _noise, "blur": _blur, "rotation": _rotation, "scale": _scale}


@dataclass(frozen=True)
class ShiftedItem(Item):
    """An image to which one of `OPERATIONS` is applied when it is opened."""

    source: Item | None = None
    shift: str = ""

    def image(self) -> Image.Image:
        picture = np.asarray(self.source.image(), np.float32) / 255
        draw = np.random.default_rng(generator_for(SEED, self.shift, identity(self.source)).initial_seed())
        shifted = OPERATIONS[self.shift](picture, draw)
        return Image.fromarray((np.clip(shifted, 0, 1) * 255).round().astype(np.uint8))


def shifted(items, shift: str) -> tuple[ShiftedItem, ...]:
    """`items` under one of `OPERATIONS`; each has a `key` of its own, so no cache confuses it with its source."""
    return tuple(
        ShiftedItem(
            item.label, item.class_name, path=item.path, key=f"{identity(item)} ({shift})", own=item.own, source=item, shift=shift
        )
        for item in items
    )


def relabelled(items, labels: dict[int, int]) -> tuple[Item, ...]:
    """The items whose label is a key of `labels`, with its value as their label, in their order."""
    return tuple(replace(item, label=labels[item.label]) for item in items if item.label in labels)
