"""torchvision's splits, for benchmarks whose CoOp split is not available.

Used only on request: `load_task(name, root=..., split="torchvision")`. Numbers on
them are not comparable with those on CoOp's splits. Official lists are used where
the archive has them (DTD: partition 1); official training images without a
validation part (pets, food), and all images of sets without any list (Caltech-101,
EuroSAT), are split by the fixed rule of `folders.fixed_split`.
"""

from __future__ import annotations

import json
from pathlib import Path

from .benchmarks import instead, read_benchmark
from .cards import Card
from .folders import SPLITS, fixed_split, listing
from .task import DataError, Item, Task

OFFICIAL = {
    "oxford_pets": ("annotations/trainval.txt", "annotations/test.txt"),
    "food101": ("meta/train.json", "meta/test.json"),
    "dtd": tuple(f"labels/{split}1.txt" for split in SPLITS),
    "oxford_flowers": ("imagelabels.mat", "setid.mat"),
    "caltech101": (),
    "eurosat": (),
}
NO_CLASS = ("BACKGROUND_Google", "Faces_easy")  # of Caltech-101; CoOp leaves them out too


def read_torchvision_split(card: Card, root) -> Task:
    """The benchmark of `card` with torchvision's split; classes sorted by name, flowers by number.

    Raises `DataError` when there is no such split or its files are missing or malformed.
    """
    if card.name == "fgvc_aircraft":
        return read_benchmark(card, root)  # CoOp and torchvision both use the official lists
    if card.name not in OFFICIAL:
        choices = ", ".join((*OFFICIAL, "fgvc_aircraft"))
        raise DataError(f"{card.name} has no split 'torchvision'; these have one: {choices}")
    folder = root / card.folder
    for place in (card.image_root(root), *(folder / name for name in OFFICIAL[card.name])):
        if not place.exists():
            raise DataError(
                f"{card.name}: {place} is missing{instead(place.parent, card)}; "
                f"cbbt.download_data({card.name!r}, root) downloads it"
            )
    try:
        parts = _READERS.get(card.name, _by_folders)(folder, card)
    except DataError:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise DataError(f"{card.name}: cannot read {', '.join(OFFICIAL[card.name])} in {folder}: {error}") from error
    names = _class_order(card, parts)
    labels = {name: label for label, name in enumerate(names)}
    splits = {
        split: tuple(Item(labels[name], name, path=card.image_root(root) / key, key=key) for key, name in parts[split])
        for split in SPLITS
    }
    return Task(card.name, names, card.template, **splits)


def _class_order(card: Card, parts: dict) -> tuple[str, ...]:
    """Sorted names; flowers in the order of their numbers."""
    present = {name for part in parts.values() for _, name in part}
    if card.name != "oxford_flowers":
        return tuple(sorted(present))
    return tuple(name for name in _flower_names() if name in present)


def _by_folders(folder: Path, card: Card) -> dict:
    classes = {name: path for name, path in listing(folder / card.images).folders.items() if name not in NO_CLASS}
    return _divided({name: [f"{name}/{file}" for file in listing(path).images] for name, path in classes.items()})


def _divided(keys_of_class: dict[str, list[str]]) -> dict:
    parts = {split: [] for split in SPLITS}
    for name in sorted(keys_of_class):
        for split, keys in fixed_split(keys_of_class[name], name).items():
            parts[split] += [(key, name) for key in keys]
    return parts


def _with_val(train: list[tuple[str, str]], test: list[tuple[str, str]]) -> dict:
    """Official train and test; a fifth of train, by the fixed rule's second part, becomes val."""
    by_class: dict[str, list[str]] = {}
    for key, name in train:
        by_class.setdefault(name, []).append(key)
    val = {key for name, keys in by_class.items() for key in fixed_split(keys, name)["val"]}
    return {
        "train": [pair for pair in train if pair[0] not in val],
        "val": [pair for pair in train if pair[0] in val],
        "test": test,
    }


def _pets(folder: Path, card: Card) -> dict:
    def read(name: str):
        images = [
            line.split()[0] for line in (folder / name).read_text(encoding="utf-8").splitlines() if line[:1] not in ("", "#")
        ]
        return [(f"{image}.jpg", image.rpartition("_")[0].lower()) for image in images]

    return _with_val(*(read(name) for name in OFFICIAL[card.name]))


def _food(folder: Path, card: Card) -> dict:
    def read(name: str):
        return [
            (f"{key}.jpg", cls) for cls, keys in json.loads((folder / name).read_text(encoding="utf-8")).items() for key in keys
        ]

    return _with_val(*(read(name) for name in OFFICIAL[card.name]))


def _textures(folder: Path, card: Card) -> dict:
    lists = zip(SPLITS, OFFICIAL[card.name])
    return {s: [(line, line.split("/")[0]) for line in (folder / name).read_text(encoding="utf-8").split()] for s, name in lists}


def _flowers(folder: Path, card: Card) -> dict:
    from scipy.io import loadmat

    names = _flower_names()
    labels = loadmat(folder / "imagelabels.mat", squeeze_me=True)["labels"]
    numbers = loadmat(folder / "setid.mat", squeeze_me=True)
    part_of = {"train": "trnid", "val": "valid", "test": "tstid"}
    return {
        split: [(f"image_{n:05d}.jpg", names[labels[n - 1] - 1]) for n in numbers[key].tolist()] for split, key in part_of.items()
    }


def _flower_names() -> list[str]:
    import torchvision

    names = getattr(torchvision.datasets.Flowers102, "classes", None)
    if names is None:
        raise DataError(f"torchvision {torchvision.__version__} does not name the flowers: install a newer one")
    return names


_READERS = {"oxford_pets": _pets, "food101": _food, "dtd": _textures, "oxford_flowers": _flowers}
