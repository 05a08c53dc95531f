"""Tasks from a user's own folder, with one subfolder per class.

The class folders are either in `train`, `test` and perhaps `val`, which are then used
as they are, or directly in the folder; then each class is split by the fixed
`SPLIT_RULE`. Hidden entries, system folders and files that are not images are
skipped, with one warning that lists them.
"""

from __future__ import annotations

import os
import random
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from .images import image_endings
from .names import class_order, nfc
from .task import DataError, Item, Task, located

SPLITS = ("train", "val", "test")
SPLIT_RULE = "cbbt 50/20/30 v1"  # names the rule below and seeds it; a new rule needs a new name
TEMPLATE = "a photo of a {}."
# What macOS, Windows and network storage add to a user's files: folders to skip, and files to skip without mention.
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
SYSTEM_FILES = re.compile(r"\._.*|\.DS_Store|(?i:(eh)?thumbs\.db|desktop\.ini)")
UNDECODED = re.compile("[\ud800-\udfff]")  # bytes of a name that are invalid in the file system's encoding


class Listing(NamedTuple):
    """The content of a folder: name in NFC → path with the name on disk, sorted; and the names of skipped entries."""

    folders: dict[str, Path]
    images: dict[str, Path]
    skipped: tuple[str, ...]


def listing(folder: Path) -> Listing:
    """The visible folders and images in `folder`.

    Raises `DataError` for a folder that cannot be read, a name in another encoding,
    and two names that differ only in their Unicode form.
    """
    kinds: dict[bool, dict[str, Path]] = {True: {}, False: {}}
    endings, skipped = image_endings(), []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name, is_folder = nfc(entry.name), entry.is_dir()
                counts = name not in SYSTEM_FOLDERS if is_folder else name.lower().endswith(endings)
                if SYSTEM_FILES.fullmatch(name):
                    continue
                if name.startswith(".") or not counts:
                    skipped.append(entry.name)
                elif UNDECODED.search(name):
                    raise DataError(f"{folder} holds a name that cannot be read as text, {name!r}: rename it")
                elif name in kinds[is_folder]:
                    both = f"{kinds[is_folder][name].name!a} and {entry.name!a}"
                    raise DataError(f"{folder} holds {name!r} twice, in two Unicode forms: {both}; rename one")
                else:
                    kinds[is_folder][name] = Path(folder, entry.name)
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error}") from error
    return Listing(dict(sorted(kinds[True].items())), dict(sorted(kinds[False].items())), tuple(sorted(skipped)))


def fixed_split(names, class_folder: str) -> dict[str, list[str]]:
    """n names of one class → train (half, rounded up), val (a fifth, rounded down), test (the rest).

    Names are sorted, then shuffled by a stream that depends on `SPLIT_RULE` and the
    class folder's name only: not on the run's seed, the order of the file
    system, the other classes or the folder's location.
    """
    shuffled = sorted(names)
    random.Random(f"{SPLIT_RULE}/{class_folder}").shuffle(shuffled)
    train = (len(shuffled) + 1) // 2
    val = train + len(shuffled) // 5
    parts = shuffled[:train], shuffled[train:val], shuffled[val:]
    return {split: sorted(part) for split, part in zip(SPLITS, parts)}


def read_folder(folder) -> Task:
    """The task of a folder of class folders, full splits; classes in the order of `names.class_order`.

    Raises `DataError` for a folder that cannot be read or has no class folders, images next to
    class folders, train/val/test mixed with class folders, classes without images or with too
    few to split, empty files, splits whose classes differ, and a single class.
    """
    folder, skipped = located(folder, "the folder"), []
    found = _without_images(folder, skipped)
    if not found.folders:
        raise DataError(f"{folder} holds no class folders: expected one folder of images per class")
    given = set(found.folders) & set(SPLITS)
    classes, splits = (_given_splits if given else _class_folders)(folder, found.folders, skipped)
    if len(classes) < 2:
        raise DataError(f"{folder} holds one class, {classes[0]}: expected at least two")
    if skipped:
        kinds = Counter(_kind(path) for path in skipped).most_common(10)
        warnings.warn(
            f"{folder}: skipped {len(skipped)} entries that are hidden or not images, "
            f"{', '.join(f'{count} {kind}' for kind, count in kinds)}; first {skipped[0]}",
            stacklevel=2,
        )
    return Task(nfc(folder.resolve().name), tuple(classes), TEMPLATE, **splits)


def _kind(path: str) -> str:
    name = os.path.basename(path)
    return "hidden" if name.startswith(".") else os.path.splitext(name)[1].lower() or name


def _given_splits(folder: Path, parts: dict[str, Path], skipped: list[str]) -> tuple[list[str], dict]:
    others = [name for name in parts if name not in SPLITS]
    if others:
        raise DataError(
            f"{folder} mixes two layouts: train/val/test are next to {', '.join(others[:5])}. "
            "Expected either train, test and perhaps val, or class folders only."
        )
    if not {"train", "test"} <= set(parts):
        raise DataError(f"{folder}: expected train and test (val is optional), got {', '.join(parts)}")
    found = {split: _without_images(path, skipped).folders for split, path in parts.items()}
    classes = class_order(found["train"])
    for split in parts:
        differing = sorted(set(classes) ^ set(found[split]))
        if differing:
            raise DataError(f"{folder}: train and {split} differ in the classes {', '.join(differing[:5])}")
    if not classes:
        raise DataError(f"{folder / 'train'} holds no class folders: expected one folder of images per class")
    splits = {
        split: tuple(
            Item(label, name, path=path, key=f"{split}/{name}/{image}", own=True)
            for label, name in enumerate(classes)
            for image, path in _class_images(found[split][name], skipped, at_least=1).items()
        )
        for split in parts
    }
    return classes, {"val": ()} | splits


def _class_folders(folder: Path, found: dict[str, Path], skipped: list[str]) -> tuple[list[str], dict]:
    classes = class_order(found)
    splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
    for label, name in enumerate(classes):
        images = _class_images(found[name], skipped, at_least=2)
        for split, part in fixed_split(images, name).items():
            splits[split] += [Item(label, name, path=images[image], key=f"{name}/{image}", own=True) for image in part]
    return classes, {split: tuple(items) for split, items in splits.items()}


def _without_images(folder: Path, skipped: list[str]) -> Listing:
    """The listing of a folder of class folders; what it skips is added to `skipped`."""
    found = listing(folder)
    if found.images and found.folders:
        raise DataError(
            f"{folder} holds {len(found.images)} images outside class folders, first {next(iter(found.images))}: "
            "expected class folders only"
        )
    skipped += found.skipped
    return found


def _class_images(folder: Path, skipped: list[str], at_least: int) -> dict[str, Path]:
    found = listing(folder)
    skipped += [f"{folder.name}/{name}" for name in found.skipped]
    if found.folders:
        raise DataError(f"the class folder {folder} holds the folder {next(iter(found.folders))}: expected images only")
    if len(found.images) < at_least:
        others = f" ({len(found.skipped)} other entries, first {found.skipped[0]})" if found.skipped else ""
        raise DataError(
            f"the class folder {folder} holds {len(found.images)} images{others}, expected at least {at_least}; "
            f"accepted endings: {' '.join(image_endings())}"
        )
    try:
        empty = [path.name for path in found.images.values() if not path.stat().st_size]
    except OSError as error:
        raise DataError(f"cannot read an image of {folder}: {error}") from error
    if empty:
        raise DataError(f"the class folder {folder} holds {len(empty)} empty files, first {empty[0]}: replace or remove them")
    return found.images
