"""Images of one's own: a folder with one folder per class.

Either the class folders lie below `train`, `test` and perhaps `val`, which are then
used as they are, or directly below the folder; then each class is split once and
for all by `SPLIT_RULE`. Hidden files and files that are no images are ignored.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from .task import DataError, Item, Task

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
SPLITS = ("train", "val", "test")
SPLIT_RULE = "cbbt 50/20/30 v1"  # names the rule below and seeds it; a new rule needs a new name
TEMPLATE = "a photo of a {}."


def visible_folders(folder: Path) -> list[str]:
    """Names of the folders in `folder`, sorted, hidden ones left out; none if it is absent."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def image_names(folder: Path) -> list[str]:
    """Names of the image files in `folder`, sorted, hidden ones left out."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".") and not entry.is_dir()]
    return sorted(name for name in names if name.lower().endswith(IMAGE_SUFFIXES))


def fixed_split(names, class_folder: str) -> dict[str, list[str]]:
    """n names of one class → train (half, rounded up), val (a fifth, rounded down), test (the rest).

    Names are sorted, then shuffled by a stream that depends on `SPLIT_RULE` and the
    class folder's name only: not on a seed of the run, the order of the file
    system, the other classes or the place of the folder.
    """
    shuffled = sorted(names)
    random.Random(f"{SPLIT_RULE}/{class_folder}").shuffle(shuffled)
    train = (len(shuffled) + 1) // 2
    val = train + len(shuffled) // 5
    parts = shuffled[:train], shuffled[train:val], shuffled[val:]
    return {split: sorted(part) for split, part in zip(SPLITS, parts)}


def read_folder(folder) -> Task:
    """The task of a folder of class folders: classes in sorted order, full splits.

    Raises `DataError` for a folder without class folders, images beside class
    folders, train/val/test mixed with class folders, classes without images or
    with too few to split, splits whose classes differ, and a single class.
    """
    folder = Path(folder).expanduser()
    subfolders = visible_folders(folder)
    if not subfolders:
        raise DataError(f"{folder} holds no class folders: expected one folder of images per class")
    _refuse_stray_images(folder)
    given = set(subfolders) & set(SPLITS)
    task = (_read_given_splits if given else _read_class_folders)(folder, subfolders)
    if len(task.class_names) < 2:
        raise DataError(f"{folder} holds one class, {task.class_names[0]}: expected two or more to tell apart")
    return task


def _read_given_splits(folder: Path, subfolders: list[str]) -> Task:
    others = [name for name in subfolders if name not in SPLITS]
    if others:
        raise DataError(
            f"{folder} mixes two layouts: train/val/test lie beside {', '.join(others[:5])}. "
            "Expected either train, test and perhaps val, or class folders only."
        )
    if not {"train", "test"} <= set(subfolders):
        raise DataError(f"{folder}: expected train and test (val is optional), got {', '.join(subfolders)}")
    classes = visible_folders(folder / "train")
    for split in subfolders:
        _refuse_stray_images(folder / split)
        differing = sorted(set(classes) ^ set(visible_folders(folder / split)))
        if differing:
            raise DataError(f"{folder}: train and {split} differ in the classes {', '.join(differing[:5])}")
    if not classes:
        raise DataError(f"{folder / 'train'} holds no class folders: expected one folder of images per class")
    splits = {
        split: tuple(
            Item(label, name, path=folder / split / name / image, key=f"{split}/{name}/{image}")
            for label, name in enumerate(classes)
            for image in _class_images(folder / split / name, at_least=1)
        )
        for split in subfolders
    }
    return Task(folder.resolve().name, tuple(classes), TEMPLATE, **({"val": ()} | splits))


def _read_class_folders(folder: Path, classes: list[str]) -> Task:
    splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
    for label, name in enumerate(classes):
        parts = fixed_split(_class_images(folder / name, at_least=2), name)
        for split in SPLITS:
            splits[split] += [Item(label, name, path=folder / name / image, key=f"{name}/{image}") for image in parts[split]]
    return Task(folder.resolve().name, tuple(classes), TEMPLATE, **{s: tuple(items) for s, items in splits.items()})


def _refuse_stray_images(folder: Path) -> None:
    stray = image_names(folder)
    if stray:
        raise DataError(
            f"{folder} holds {len(stray)} images outside class folders, first {stray[0]}: expected class folders only"
        )


def _class_images(folder: Path, at_least: int) -> list[str]:
    deeper = visible_folders(folder)
    if deeper:
        raise DataError(f"the class folder {folder} holds the folder {deeper[0]}: expected images only")
    names = image_names(folder)
    if len(names) < at_least:
        raise DataError(
            f"the class folder {folder} holds {len(names)} images, expected at least {at_least}; "
            f"endings that count: {' '.join(IMAGE_SUFFIXES)}"
        )
    return names
