"""Twelve kinds of land seen from above, modelled on the classes of EuroSAT.

Each function draws one RGB picture (SIDE, SIDE, 3) in [0, 1] from a generator.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .fields import SIDE, paint, rotated, smooth_noise, step

GREEN, DARK_GREEN, PALE_GREEN = (0.33, 0.5, 0.22), (0.1, 0.25, 0.1), (0.55, 0.68, 0.35)
SOIL, STRAW, SAND = (0.5, 0.38, 0.26), (0.8, 0.72, 0.42), (0.87, 0.74, 0.5)
BLUE, DEEP_BLUE, GRAY, SNOW = (0.22, 0.42, 0.55), (0.06, 0.17, 0.36), (0.55, 0.55, 0.55), (0.93, 0.95, 0.98)


def _tint(rng, colour, spread: float = 0.06) -> np.ndarray:
    return np.asarray(colour, np.float32) + rng.uniform(-spread, spread, 3).astype(np.float32)


def _ground(rng, colour, cells: int, depth: float) -> np.ndarray:
    """A surface of one colour whose brightness varies by +-`depth` at SIDE / cells pixels."""
    light = 1 + 2 * depth * (smooth_noise(rng, cells) - 0.5)
    return _tint(rng, colour) * light[..., None]


def _countryside(rng) -> np.ndarray:
    """A quiet background of green or brown land in two or three patches."""
    first, second = rng.choice(np.array([GREEN, PALE_GREEN, SOIL, DARK_GREEN]), 2, replace=False)
    patches = step(smooth_noise(rng, 4), 0.5, 0.05)
    return paint(patches, _tint(rng, first), _tint(rng, second)) * (0.85 + 0.3 * smooth_noise(rng, 12))[..., None]


def _boxes(rng, count: int, width, depth, colours, picture: np.ndarray, angle: float) -> np.ndarray:
    """`picture` with `count` rectangles, sides drawn from `width` and `depth`, all rotated by `angle`."""
    canvas = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    sides = np.stack([rng.uniform(*width, count), rng.uniform(*depth, count)], axis=1)
    outlines = (corners * sides[:, None]) @ turn + rng.uniform(0, SIDE, (count, 1, 2))
    paints = np.asarray(colours)[rng.integers(len(colours), size=count)] + rng.uniform(-0.06, 0.06, (count, 3))
    paints = (255 * np.clip(paints, 0, 1)).astype(int)
    for outline, colour in zip(outlines, paints):
        draw.polygon((outline + 1.5).ravel().tolist(), fill=(35, 35, 35))  # its shadow
        draw.polygon(outline.ravel().tolist(), fill=tuple(colour.tolist()))
    return np.asarray(canvas, np.float32) / 255


def _winding(rng, swing: float, width: float) -> np.ndarray:
    """Mask of one band across the picture, `width` pixels wide, that swings by `swing` pixels."""
    u, v = rotated(rng.uniform(-np.pi, np.pi))
    middle = rng.uniform(-10, 10) + swing * np.sin(u / rng.uniform(7, 13) + rng.uniform(0, 6))
    return step(-np.abs(v - middle), -width / 2, 1.5)


def farmland(rng):
    u, v = rotated(rng.uniform(-np.pi, np.pi))
    strip, block = np.floor(u / rng.uniform(9, 18) + rng.random()), np.floor(v / rng.uniform(25, 45) + rng.random())
    colours = np.array([_tint(rng, c) for c in (GREEN, PALE_GREEN, SOIL, STRAW, STRAW, SOIL)], np.float32)
    field = ((strip - strip.min()) * 7 + (block - block.min()) * 3).astype(int) * 5 % 6
    furrows = 1 + rng.uniform(0.05, 0.12) * np.sin(2 * np.pi * u / rng.uniform(4, 6))
    return colours[field] * furrows[..., None]


def forest(rng):
    crowns = smooth_noise(rng, int(rng.integers(18, 26)))
    return _tint(rng, DARK_GREEN) * (0.5 + 1.1 * crowns * (0.7 + 0.6 * smooth_noise(rng, 4)))[..., None]


def meadow(rng):
    ground = paint(smooth_noise(rng, 6), _tint(rng, GREEN), _tint(rng, (0.5, 0.5, 0.3)))
    shrubs = step(smooth_noise(rng, 16), 0.72, 0.15)
    return ground * (1 - 0.5 * shrubs)[..., None]


def road(rng):
    width = rng.uniform(4, 8)
    u, v = rotated(rng.uniform(-np.pi, np.pi))
    away = np.abs(v - rng.uniform(-12, 12) - rng.uniform(-0.004, 0.004) * u**2)
    picture = paint(step(-away, -width, 1.5), _tint(rng, (0.7, 0.67, 0.6)), (0, 0, 0))
    asphalt = paint(step(-away, -width * 0.75, 1.0), _tint(rng, (0.38, 0.38, 0.4)), picture)
    return paint(step(-away, -width, 1.5), asphalt, _countryside(rng))


def factory(rng):
    roofs = [(0.85, 0.87, 0.9), (0.68, 0.7, 0.73), (0.5, 0.58, 0.7), (0.75, 0.7, 0.65)]
    ground = _ground(rng, (0.5, 0.48, 0.46), 10, 0.15)
    return _boxes(rng, int(rng.integers(5, 9)), (14, 34), (10, 20), roofs, ground, rng.uniform(-0.6, 0.6))


def pasture(rng):
    u, v = rotated(rng.uniform(-np.pi, np.pi))
    hedges = np.minimum(np.abs(u - rng.uniform(-20, 20)), np.abs(v - rng.uniform(-20, 20)))
    ground = _ground(rng, (0.5, 0.64, 0.3), 5, 0.12)
    return ground * (1 - 0.55 * step(-hedges, -1.3, 1.0))[..., None]


def orchard(rng):
    u, v = rotated(rng.uniform(-np.pi, np.pi))
    period = rng.uniform(7, 11)
    away = np.hypot(u / period % 1 - 0.5, v / period % 1 - 0.5)
    return paint(
        step(-away, -rng.uniform(0.28, 0.36), 0.15), _tint(rng, (0.16, 0.32, 0.14)), _ground(rng, (0.66, 0.57, 0.4), 8, 0.12)
    )


def houses(rng):
    roofs = [(0.66, 0.33, 0.25), (0.56, 0.4, 0.33), (0.75, 0.55, 0.45), (0.45, 0.42, 0.42)]
    angle = rng.uniform(-0.7, 0.7)
    u, v = rotated(-angle)
    street = np.minimum(
        np.abs((u / rng.uniform(22, 34) + rng.random()) % 1 - 0.5) * 28,
        np.abs((v / rng.uniform(22, 34) + rng.random()) % 1 - 0.5) * 28,
    )
    ground = paint(step(-street, -2.2, 1.0), _tint(rng, GRAY), _ground(rng, (0.35, 0.45, 0.27), 14, 0.3))
    return _boxes(rng, int(rng.integers(26, 40)), (5, 9), (4, 7), roofs, ground, angle)


def river(rng):
    water = _tint(rng, BLUE if rng.random() < 0.7 else (0.38, 0.42, 0.34))
    return paint(_winding(rng, rng.uniform(4, 10), rng.uniform(8, 15)), water, _countryside(rng))


def sea(rng):
    water = paint(smooth_noise(rng, 4), _tint(rng, BLUE, 0.05), _tint(rng, DEEP_BLUE, 0.05))
    water = water * (0.94 + 0.12 * smooth_noise(rng, 24))[..., None]
    if rng.random() < 0.5:
        return water
    _, v = rotated(rng.uniform(-np.pi, np.pi))
    shore = step(v + 10 * (smooth_noise(rng, 6) - 0.5), rng.uniform(8, 22), 1.5)
    return paint(shore, _countryside(rng), water)


def desert(rng):
    _, v = rotated(rng.uniform(-np.pi, np.pi))
    dunes = np.sin((v + 12 * smooth_noise(rng, 5)) * rng.uniform(0.4, 0.7))
    return _tint(rng, SAND) * (0.93 + 0.1 * dunes * smooth_noise(rng, 4))[..., None]


def snow(rng):
    shade = step(smooth_noise(rng, 7), 0.62, 0.3) * rng.uniform(0.3, 0.8)
    return paint(shade, _tint(rng, (0.62, 0.7, 0.8), 0.04), _tint(rng, SNOW, 0.03))


LANDS = {
    draw.__name__: draw for draw in (farmland, forest, meadow, road, factory, pasture, orchard, houses, river, sea, desert, snow)
}
