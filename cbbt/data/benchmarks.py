"""Benchmarks in the folder layout of CoOp, with CoOp's splits.

Nine benchmarks come with a fixed `split_zhou_*.json`; FGVC Aircraft has official
lists; ImageNet's folders are read in sorted order. No new split is ever made: a missing
list is an error. (CoOp draws a random split and saves it when the file is absent.)
See `cards` for the table and github.com/KaiyangZhou/CoOp for the origin.
"""

from __future__ import annotations

import difflib
import json
import os
import posixpath
import re
from pathlib import Path

from .cards import SPLIT_SOURCES, Card
from .folders import listing
from .names import nfc
from .task import DataError, Item, Task

SPLITS = ("train", "val", "test")
UNPRINTABLE = re.compile("[\0\ud800-\udfff]")  # possible in JSON, but not in a path


def read_benchmark(card: Card, root) -> Task:
    """The benchmark of `card` in the data folder `root`, with CoOp's full splits.

    Images are not opened, and files of a split list need not exist yet: a missing
    one is reported when it is drawn or opened; `check_data` reports all.
    Raises `DataError` when a list or the images' folder is missing or malformed.
    """
    require_lists(card, root)
    if card.name == "imagenet":
        return _read_imagenet(card, Path(root))
    if card.name == "fgvc_aircraft":
        return _read_fgvc(card, Path(root))
    return read_split_file(card, root)


def require_lists(card: Card, root) -> None:
    """Raises `DataError` unless the lists and the images' folder of `card` are there."""
    folder = Path(root) / card.folder
    if not os.path.isdir(folder):
        raise DataError(
            f"{card.name} is not in {root}{instead(root, card)}: expected the folder {card.layout()}. Images: {card.by_hand}. "
            f"Lists: {SPLIT_SOURCES}. cbbt.check_data({str(root)!r}) says what each benchmark lacks."
        )
    for name in card.lists:
        if not os.path.isfile(folder / name):
            raise DataError(
                f"{card.name}: the list {folder / name} is missing. It says which images CoOp trains and tests on, "
                f"and no other split replaces it. Get it from {SPLIT_SOURCES}, for most benchmarks by "
                "cbbt.download_data(name, root). load_task(..., split='torchvision') selects torchvision's "
                "split, which is a different one."
            )
    if not os.path.isdir(card.image_root(root)):
        found = instead(folder, card)
        raise DataError(f"{card.name}: the images' folder {card.image_root(root)} is missing{found}. Images: {card.by_hand}.")


def instead(folder, card: Card, cutoff: float = 0.0) -> str:
    """For an error message: folders in `folder`, those named most like the benchmark first; empty if there are none."""

    def likeness(name: str) -> float:
        plain = re.sub(r"\W|_", "", name.lower())
        return max(difflib.SequenceMatcher(None, plain, re.sub(r"\W|_", "", known)).ratio() for known in (card.name, card.folder))

    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except OSError as error:
        return f" ({error.strerror})"
    likely = sorted((name for name in names if likeness(name) >= cutoff), key=likeness, reverse=True)
    return f" (found: {', '.join(likely[:5])}; rename it if it is one of these)" if likely else ""


def read_split_file(card: Card, root) -> Task:
    """The splits of a `split_zhou_*.json`: train, val, test → lists of [path, label, class name].

    Raises `DataError` naming file and entry for wrong keys, types, labels that do
    not run from 0 to C - 1 with one name each, two labels with one name, paths
    outside the images' folder, and images that are listed twice.
    """
    file = Path(root) / card.folder / card.lists[0]
    text = _text(file)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: {error}. Get it again from {SPLIT_SOURCES}.") from error
    if not isinstance(content, dict) or set(content) != set(SPLITS):
        got = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{file}: expected an object with the keys train, val and test, got {got}")

    images, names, home = card.image_root(root), {}, {}
    splits = {}
    for split in SPLITS:
        if not isinstance(content[split], list):
            raise DataError(f"{file}: {split} should be a list, got {type(content[split]).__name__}")
        items = []
        for position, entry in enumerate(content[split]):
            where = f"{file}, {split}[{position}]"
            path, label, class_name = _checked_entry(entry, where)
            if names.setdefault(label, class_name) != class_name:
                raise DataError(f"{where}: label {label} is {class_name!r} here and {names[label]!r} earlier")
            _claim(home, nfc(path), split, where)
            items.append(Item(label, class_name, path=images / path, key=nfc(path)))
        splits[split] = tuple(items)
    if sorted(names) != list(range(len(names))) or not names:
        raise DataError(f"{file}: labels should run from 0 to {len(names) - 1} without gaps, got {sorted(names)}")
    _refuse_shared_names(names, file)
    return Task(card.name, tuple(names[label] for label in sorted(names)), card.template, **splits)


def _claim(home: dict[str, str], key: str, split: str, where: str) -> None:
    """Record the split of an image in `home`; `DataError` if it has one already."""
    if key in home:
        twice = "twice" if home[key] == split else f"in {home[key]} as well"
        raise DataError(f"{where}: {key} is {twice}; an image belongs to one split, once")
    home[key] = split


def _refuse_shared_names(names: dict[int, str], file: Path) -> None:
    # Two classes with the same prompt cannot be told apart.
    first: dict[str, int] = {}
    for label, name in names.items():
        if first.setdefault(name, label) != label:
            raise DataError(f"{file}: the labels {first[name]} and {label} have the same name, {name!r}")


def _checked_entry(entry, where: str) -> tuple[str, int, str]:
    if not isinstance(entry, list) or [type(part) for part in entry] != [str, int, str]:
        raise DataError(f"{where}: expected [relative path, label, class name], got {entry!r}")
    path, label, class_name = entry
    plain = posixpath.normpath(path)
    if plain in ("", ".") or plain.startswith("/") or "\\" in path or ".." in path.split("/"):
        raise DataError(f"{where}: {path!r} leaves the images' folder; expected a path below it, with / and no ..")
    if UNPRINTABLE.search(path + class_name):
        raise DataError(f"{where}: the path or name has characters that no file system allows, got {entry!r}")
    if label < 0 or not class_name.strip():
        raise DataError(f"{where}: expected a label from 0 and a class name that is not empty, got {entry!r}")
    return plain, label, nfc(class_name)


def _read_fgvc(card: Card, root: Path) -> Task:
    """Official lists: a label is the line of the variant in variants.txt."""
    folder, images = root / card.folder, card.image_root(root)
    class_names = tuple(_lines(folder / "variants.txt"))
    _refuse_shared_names(dict(enumerate(class_names)), folder / "variants.txt")
    labels = {name: label for label, name in enumerate(class_names)}
    splits, home = {}, {}
    for split in SPLITS:
        file = folder / f"images_variant_{split}.txt"
        items = []
        for number, line in enumerate(_lines(file), start=1):
            image, _, class_name = line.partition(" ")
            if class_name not in labels:
                raise DataError(f"{file}, line {number}: {class_name!r} is not in variants.txt")
            if posixpath.basename(image) != image or not image:
                raise DataError(f"{file}, line {number}: expected the name of an image, got {image!r}")
            key = f"{image}.jpg"
            _claim(home, key, split, f"{file}, line {number}")
            items.append(Item(labels[class_name], class_name, path=images / key, key=key))
        splits[split] = tuple(items)
    return Task(card.name, class_names, card.template, **splits)


def _read_imagenet(card: Card, root: Path) -> Task:
    """Class folders in sorted order; images/val is the test split and there is no validation split.

    CoOp lists the images of a class in the order of the file system, so its few-shot
    sets differ between machines; here they are sorted and the same everywhere.
    """
    file, images = root / card.folder / "classnames.txt", card.image_root(root)
    names = dict(line.split(" ", 1) for line in _lines(file) if " " in line)
    folders = {split: listing(images / split).folders for split in ("train", "val")}
    if list(folders["train"]) != list(folders["val"]) or not folders["train"]:
        raise DataError(
            f"{images}: train and val should hold the same class folders (n01440764, …), got "
            f"{len(folders['train'])} and {len(folders['val'])}; images of val must first be sorted into such folders"
        )
    unnamed = [folder for folder in folders["train"] if folder not in names]
    if unnamed:
        raise DataError(f"{file} does not name {len(unnamed)} class folders, first {unnamed[0]}; expected lines 'wnid name'")

    def items(split: str) -> tuple[Item, ...]:
        found = {folder: listing(path).images for folder, path in folders[split].items()}
        empty = [folder for folder in found if not found[folder]]
        if empty:
            raise DataError(f"{images / split}: {len(empty)} class folders hold no image, first {empty[0]}")
        return tuple(
            Item(label, names[folder], path=path, key=f"{split}/{folder}/{name}")
            for label, folder in enumerate(found)
            for name, path in found[folder].items()
        )

    class_names = tuple(names[folder] for folder in folders["train"])
    return Task(card.name, class_names, card.template, train=items("train"), val=(), test=items("val"))


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in _text(file).splitlines() if line.strip()]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8: {error}. Get it again from {SPLIT_SOURCES}.") from error
    except OSError as error:
        raise DataError(f"cannot read the list {file}: {error}") from error
