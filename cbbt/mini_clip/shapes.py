"""Fourteen flat shapes as polygons, and how they are filled or outlined."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .fields import SIDE

Polygons = tuple[np.ndarray, ...]


def _around(angles, radii) -> np.ndarray:
    angles = np.radians(np.asarray(angles, np.float64))
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], axis=1)


def _circle(radius: float = 1.0) -> np.ndarray:
    return _around(np.arange(0, 360, 9), radius)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y - 2], axis=1) / 16


def _crescent() -> np.ndarray:
    outer, inner = np.radians(np.arange(50, 311, 10)), np.radians(np.linspace(277, 83, 20))
    outer = np.stack([np.cos(outer), np.sin(outer)], axis=1)  # the two arcs meet at 50 degrees
    inner = np.stack([0.55 + 0.772 * np.cos(inner), 0.772 * np.sin(inner)], axis=1)
    return np.concatenate([outer, inner]) + [0.2, 0]


SHAPES: dict[str, Polygons] = {
    "circle": (_circle(),),
    "square": (0.85 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float),),
    "triangle": (_around([0, 120, 240], 1.1),),
    "star": (_around(np.arange(0, 360, 36), np.tile([1.1, 0.45], 5)),),
    "heart": (_heart(),),
    "cross": (
        np.array(
            [
                (-0.3, -1),
                (0.3, -1),
                (0.3, -0.3),
                (1, -0.3),
                (1, 0.3),
                (0.3, 0.3),
                (0.3, 1),
                (-0.3, 1),
                (-0.3, 0.3),
                (-1, 0.3),
                (-1, -0.3),
                (-0.3, -0.3),
            ]
        ),
    ),
    "arrow": (np.array([(-1.1, -0.28), (0.1, -0.28), (0.1, -0.8), (1.1, 0), (0.1, 0.8), (0.1, 0.28), (-1.1, 0.28)]),),
    "ring": (_circle(), _circle(0.52)),
    "crescent": (_crescent(),),
    "diamond": (np.array([(0, -1.15), (0.72, 0), (0, 1.15), (-0.72, 0)]),),
    "house": (np.array([(0, -1.1), (1, -0.2), (0.75, -0.2), (0.75, 0.95), (-0.75, 0.95), (-0.75, -0.2), (-1, -0.2)]),),
    "hexagon": (_around(np.arange(30, 390, 60), 1.05),),
    "ellipse": (_circle() * [1.15, 0.6],),
    "lightning": (
        np.array([(0.15, -1.15), (-0.6, 0.15), (-0.05, 0.15), (-0.25, 1.15), (0.6, -0.3), (0.05, -0.3), (0.45, -1.15)]),
    ),
}  # corners in units of the shape's radius, x to the right and y down; a second polygon is a hole


def placed(rng: np.random.Generator, kind: str, size: tuple[float, float], tilt: float) -> Polygons:
    """The polygons of `kind` in pixels: radius drawn from `size`, turned by up to `tilt` degrees, shifted."""
    radius, angle = rng.uniform(*size), np.radians(rng.uniform(-tilt, tilt))
    stretch = rng.uniform(0.88, 1.12)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    room = max(0.0, SIDE / 2 - 1.1 * radius)
    centre = SIDE / 2 + rng.uniform(-room, room, 2)
    return tuple((points * [stretch, 1 / stretch]) @ turn * radius + centre for points in SHAPES[kind])


def filled(polygons: Polygons) -> np.ndarray:
    """Mask (SIDE, SIDE) in [0, 1] of the inside, holes left open."""
    canvas = Image.new("L", (SIDE, SIDE))
    draw = ImageDraw.Draw(canvas)
    for points, value in zip(polygons, (255, 0)):
        draw.polygon(points.ravel().tolist(), fill=value)
    return np.asarray(canvas, np.float32) / 255


def outlined(polygons: Polygons, width: int) -> np.ndarray:
    """Mask (SIDE, SIDE) in [0, 1] of the borders, `width` pixels wide."""
    canvas = Image.new("L", (SIDE, SIDE))
    draw = ImageDraw.Draw(canvas)
    for points in polygons:
        closed = np.concatenate([points, points[:2]])
        draw.line(closed.ravel().tolist(), fill=255, width=width, joint="curve")
    return np.asarray(canvas, np.float32) / 255
