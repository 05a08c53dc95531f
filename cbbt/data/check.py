"""`check_data`: which benchmarks are ready, what the others lack and where to get it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from .benchmarks import instead, read_benchmark
from .cards import CARDS, SPLIT_SOURCES, Card
from .task import DataError, Task, located

NAMED = 5  # files that a report names; the rest are only counted


@dataclass(frozen=True)
class DataReport:
    """The state of one benchmark on disk.

    `state` is ready, incomplete or absent; `present` of `expected` image files
    exist; `missing` and `broken` name the first few by their path in the
    images' folder (`broken` only when images were opened); `note` says what is
    unusual and `todo` what to do.
    """

    dataset: str
    state: str
    present: int = 0
    expected: int = 0
    missing: tuple[str, ...] = ()
    broken_count: int = 0
    broken: tuple[str, ...] = ()
    note: str = ""
    todo: str = ""


def check_data(root, names=None, *, verify_images: bool = False, progress: bool = True) -> pd.DataFrame:
    """One row (`DataReport`) per benchmark of `names` (one or several), all eleven by default.

    Every image file of the three splits is looked for; with `verify_images` every
    one is also opened and decoded, and corrupt or truncated ones are named and
    counted. If `root` is not a folder, all are absent, and the note says so.
    Raises `DataError` for an unknown name.
    """
    root = located(root, "root")
    names = tuple(CARDS) if names is None else tuple(names) if isinstance(names, (list, tuple)) else (names,)
    unknown = [name for name in names if name not in tuple(CARDS)]
    if unknown:
        raise DataError(f"no benchmark is called {unknown[0]!r}: choose from {', '.join(CARDS)}")
    bar = tqdm(names, desc="check data", unit="set", disable=not progress)
    return pd.DataFrame([asdict(_report(CARDS[name], root, verify_images, progress)) for name in bar])


def _report(card: Card, root: Path, verify_images: bool, progress: bool) -> DataReport:
    if not (root / card.folder).is_dir():
        todo = f"make {card.layout()}. Images: {card.by_hand}. Lists: {SPLIT_SOURCES}."
        note = instead(root, card, cutoff=0.6).strip(" ()")
        if not os.path.isdir(root):
            note = f"the data folder {root} {'is a file' if os.path.exists(root) else 'does not exist'}"
        return DataReport(card.name, "absent", expected=card.train + card.val + card.test, note=note, todo=todo)
    try:
        task = read_benchmark(card, root)
    except DataError as error:
        absent = tuple(name for name in (*card.lists, card.images) if not (root / card.folder / name).exists())
        total = card.train + card.val + card.test
        note = "images were not counted"
        return DataReport(card.name, "incomplete", expected=total, missing=absent, note=note, todo=str(error))

    items = task.train + task.val + task.test
    missing, broken = [], []
    for item in tqdm(items, desc=card.name, unit="image", leave=False, disable=not progress):
        if not os.path.isfile(item.path):  # also False for a name that the file system does not allow
            missing.append(item.key)
        elif verify_images and not _opens(item):
            broken.append(item.key)
    todo = f"Images: {card.by_hand}." if missing or broken else ""
    return DataReport(
        card.name,
        "incomplete" if missing or broken else "ready",
        present=len(items) - len(missing),
        expected=len(items),
        missing=tuple(missing[:NAMED]),
        broken_count=len(broken),
        broken=tuple(broken[:NAMED]),
        note=_differing_sizes(card, task),
        todo=todo,
    )


def _opens(item) -> bool:
    try:
        item.image()
    except DataError:
        return False
    return True


def _differing_sizes(card: Card, task: Task) -> str:
    sizes = {
        "classes": (len(task.class_names), card.classes),
        "train": (len(task.train), card.train),
        "val": (len(task.val), card.val),
        "test": (len(task.test), card.test),
    }
    differing = [f"{name} {got} instead of {known}" for name, (got, known) in sizes.items() if got != known]
    return f"not the published sizes: {', '.join(differing)}" if differing else ""
