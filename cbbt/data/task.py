"""Few-shot tasks, independent of the source of their images.

Read this file first in `cbbt.data`: an `Item` is one labelled image, a split is
a tuple of items, a `Task` holds three disjoint splits, the class names in label
order and the hand-written template of zero-shot CLIP. `draw_shots` is the rule
by which CoOp (Zhou et al., IJCV 2022; github.com/KaiyangZhou/CoOp) picks the
training and validation shots; with the same seed it picks the same images.
"""

from __future__ import annotations

import hashlib
import os
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .images import open_rgb

END = 4096  # bytes at either end of an image file that enter its checksum


class DataError(ValueError):
    """Data that is missing, incomplete or malformed; the message says what to do."""


@dataclass(frozen=True)
class Item:
    """One labelled image, held as a file or as pixels.

    `label` counts from 0; `class_name` is the name in the split file (underscores
    become spaces only when a prompt is built); `path` is the image file, or None
    when `pixels`, a (height, width, 3) uint8 array, is given. `key` is the path
    relative to the images' root, which does not depend on where the data are stored.
    `own` images, from a user's folder, are read by `images.as_rgb`; the others as CoOp reads them.
    """

    label: int
    class_name: str
    path: Path | None = None
    key: str = ""
    pixels: np.ndarray | None = field(default=None, repr=False, compare=False)
    own: bool = False

    def image(self) -> Image.Image:
        """The image as RGB (`images.open_rgb`). Raises `DataError` when the file is absent or broken."""
        if self.pixels is not None:
            return Image.fromarray(self.pixels)
        try:
            return open_rgb(self.path, self.own)
        except Exception as error:  # decoders raise almost anything on broken bytes
            raise DataError(f"cannot read image {self.path}: {error}") from error


@dataclass(frozen=True)
class Task:
    """A classification task: three disjoint splits, class names, a template.

    `template` is a sentence with `{}` for the class name. `train` and `val` are
    the shots drawn for one seed, or the full splits if no number of shots is given.
    `found_names` are the original class names, from folders or a split file, if the
    user gave others.
    """

    name: str
    class_names: tuple[str, ...]
    template: str
    train: tuple[Item, ...] = field(repr=False)
    val: tuple[Item, ...] = field(repr=False)
    test: tuple[Item, ...] = field(repr=False)
    mirror: bool = True  # whether a flipped image keeps its class
    found_names: tuple[str, ...] = ()


def located(path, what: str = "path") -> Path:
    """`path` as an absolute one, with ~ expanded. Raises `DataError` for anything but a path."""
    if not isinstance(path, (str, os.PathLike)) or not str(path).strip():
        raise DataError(f"{what} should be a path, got {path!r}")
    return Path(os.path.expanduser(path)).absolute()


def labels_of(items) -> torch.Tensor:
    """Labels of `items` as an int64 tensor (n,)."""
    return torch.tensor([item.label for item in items], dtype=torch.int64)


def split_digest(items: Task | tuple[Item, ...]) -> str:
    """Sixteen hexadecimal digits that identify these images and labels, in this order.

    A sha256 over label and `key` (or pixels) of every item; for a `Task`, over its
    three splits. It depends neither on the location of the data nor on class names.
    """
    return _digest(items, identity)


def files_digest(items: Task | tuple[Item, ...], content: bool = False) -> str:
    """Like `split_digest`, but also over the image files (`mark`).

    An image that is added, replaced or relabelled changes it; copying the folder to another
    place or machine does not. `content` reads every file completely. Raises `DataError` for a missing file.
    """
    return _digest(items, lambda item: f"{identity(item)} {mark(item, content)}")


def _digest(items: Task | tuple[Item, ...], text_of: Callable[[Item], str]) -> str:
    if isinstance(items, Task):
        text = " ".join(_digest(split, text_of) for split in (items.train, items.val, items.test))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.label} {text_of(item)}\n".encode())
    return digest.hexdigest()[:16]


def mark(item: Item, content: bool = False) -> list | None:
    """A mark of an image file: its size and a checksum of its two ends, or a sha256 of its `content`.

    The ends distinguish compressed images, which differ up to the last byte, at 8 kB a file. None for
    an item that holds its pixels, which `identity` covers. Raises `DataError` for a file that cannot be read.
    """
    if item.path is None:
        return None
    try:
        with open(item.path, "rb") as file:
            if content:
                return [hashlib.file_digest(file, "sha256").hexdigest()]
            size, head = os.fstat(file.fileno()).st_size, file.read(END)
            file.seek(max(0, size - END))
            return [size, zlib.crc32(file.read(END), zlib.crc32(head))]
    except OSError as error:
        raise DataError(f"cannot read image {item.path}: {error}") from error


def identity(item: Item) -> str:
    """The identity of an image within a task: its `key`, or shape and sha256 of its pixels."""
    if item.pixels is None:
        return item.key or item.path.as_posix()
    return f"{item.pixels.shape} {hashlib.sha256(np.ascontiguousarray(item.pixels)).hexdigest()}"


def draw_shots(train, val, shots: int, seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Draw `shots` training and min(shots, 4) validation items of each class.

    CoOp's rule: one Python random stream per seed; items grouped by label in the
    order of first appearance; `random.sample` per class, train first, then val;
    a class with fewer items gives all of them. Returns (train items, val items).
    """
    stream = random.Random(seed)
    return _sample(train, shots, stream), _sample(val, min(shots, 4), stream)


def _sample(items, count: int, stream: random.Random) -> tuple[Item, ...]:
    groups: dict[int, list[Item]] = {}
    for item in items:
        groups.setdefault(item.label, []).append(item)
    drawn: list[Item] = []
    for group in groups.values():
        drawn += stream.sample(group, count) if len(group) >= count else group
    return tuple(drawn)
