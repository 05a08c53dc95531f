"""Sixteen textures as scalar fields, named after the Describable Textures Dataset.

Each function draws one (SIDE, SIDE) field in [0, 1] from a generator. Patterns
repeat about 3 to 7 times across the picture, so that they survive 32 pixels.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from .fields import SIDE, X, Y, rotated, smooth_noise, step

TAU = 2 * np.pi


def _grid(rng, low: float, high: float, tilt: float = np.pi):
    """Turned coordinates counted in periods of `low` to `high` pixels, with a random phase."""
    u, v = rotated(rng.uniform(-tilt, tilt))
    period = rng.uniform(low, high)
    return u / period + rng.random(), v / period + rng.random()


def _cells(rng, count: int):
    """Distances (2, SIDE, SIDE) to the two nearest of `count` random seeds, in pixels."""
    seeds = rng.uniform(-8, SIDE + 8, (count, 2))
    near, _ = cKDTree(seeds).query(np.stack([Y, X], axis=-1).reshape(-1, 2), k=2)
    return near.T.reshape(2, SIDE, SIDE).astype(np.float32)


def striped(rng):
    u, _ = _grid(rng, 9, 18)
    return step(np.sin(TAU * u), 0, 0.6)


def dotted(rng):
    u, v = _grid(rng, 11, 18)
    return step(-np.hypot(u % 1 - 0.5, v % 1 - 0.5), -rng.uniform(0.24, 0.36), 0.12)


def checkered(rng):
    u, v = _grid(rng, 9, 16)
    return ((np.floor(u) + np.floor(v)) % 2).astype(np.float32)


def meshed(rng):
    u, v = _grid(rng, 10, 17)
    width = rng.uniform(0.16, 0.26)
    return np.maximum(u % 1 < width, v % 1 < width).astype(np.float32)


def bricks(rng):
    u, v = _grid(rng, 9, 14, tilt=0.25)
    u = u / 2 + 0.5 * (np.floor(v) % 2)
    return 1 - np.maximum(u % 1 < 0.12, v % 1 < 0.2).astype(np.float32)


def zigzagged(rng):
    u, v = _grid(rng, 12, 18)
    return step(np.sin(TAU * (v + 0.9 * np.abs(u % 1 - 0.5))), 0, 0.6)


def wavy(rng):
    u, v = _grid(rng, 10, 15)
    return 0.5 + 0.5 * np.sin(TAU * (v + rng.uniform(0.3, 0.45) * np.sin(TAU * u / 2.2)))


def spiralled(rng):
    x, y = X - SIDE / 2 - rng.uniform(-6, 6), Y - SIDE / 2 - rng.uniform(-6, 6)
    arms = rng.choice([-2, -1, 1, 2])
    return step(np.sin(TAU * np.hypot(x, y) / rng.uniform(13, 19) + arms * np.arctan2(y, x)), 0, 0.6)


def concentric(rng):
    x, y = X - SIDE / 2 - rng.uniform(-6, 6), Y - SIDE / 2 - rng.uniform(-6, 6)
    return step(np.sin(TAU * (np.hypot(x, y) / rng.uniform(11, 18) + rng.random())), 0, 0.6)


def cracked(rng):
    near = _cells(rng, int(rng.integers(14, 28)))
    return step(near[1] - near[0], rng.uniform(1.6, 2.6), 1.2)


def honeycombed(rng):
    u, v = _grid(rng, 12, 19, tilt=0.5)
    v, height = v / np.float32(np.sqrt(3)), np.sqrt(3)
    lattices = ((u - np.round(u), v - np.round(v)), (u - np.floor(u) - 0.5, v - np.floor(v) - 0.5))
    away = [np.maximum(np.abs(a), np.abs(a) / 2 + np.abs(b) * height * height / 2) for a, b in lattices]
    return step(-np.minimum(*away), -rng.uniform(0.37, 0.43), 0.08)


def marbled(rng):
    u, _ = _grid(rng, 18, 30)
    veins = np.abs(np.sin(np.pi * (u + 1.6 * smooth_noise(rng, 5) + 0.7 * smooth_noise(rng, 10))))
    return np.sqrt(veins)


def speckled(rng):
    return step(smooth_noise(rng, int(rng.integers(20, 28))), rng.uniform(0.68, 0.78), 0.15)


def woven(rng):
    u, v = _grid(rng, 10, 15)
    over = (np.floor(u) + np.floor(v)) % 2
    strand = np.where(over > 0, np.abs(u % 1 - 0.5), np.abs(v % 1 - 0.5))
    thread = np.where(over > 0, np.sin(TAU * 2.5 * v), np.sin(TAU * 2.5 * u))
    return np.clip(1 - 1.9 * strand + 0.12 * thread, 0, 1)


def scaly(rng):
    u, v = _grid(rng, 11, 16, tilt=0.35)
    u = u + 0.5 * (np.floor(v) % 2)
    return np.clip(1.25 * np.hypot(u % 1 - 0.5, v % 1) ** 1.5, 0, 1)


def blotchy(rng):
    return step(smooth_noise(rng, int(rng.integers(6, 9))), rng.uniform(0.45, 0.55), 0.15)


TEXTURES = {
    draw.__name__: draw
    for draw in (
        striped,
        dotted,
        checkered,
        meshed,
        bricks,
        zigzagged,
        wavy,
        spiralled,
        concentric,
        cracked,
        honeycombed,
        marbled,
        speckled,
        woven,
        scaly,
        blotchy,
    )
}
