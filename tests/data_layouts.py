"""Writes the eleven benchmarks in miniature, each in its own folder layout, with real JPEGs."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbbt.data.cards import CARDS

COOP = Path(__file__).parents[2] / "shared" / "data" / "coop"
SIZES = {"train": 6, "val": 3, "test": 2}  # images per class
CLASSES = ("bird_of_paradise", "Sea or Lake", "2012 Acura RL Sedan")


def jpeg(number: int = 0) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (12, 16, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


PICTURE = jpeg()


def write(path: Path, content: bytes | str = PICTURE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def split_entries(name: str, sizes=SIZES) -> dict[str, list]:
    """Entries as in the benchmark's split file; the paths have that benchmark's shape."""
    above = {"stanford_cars": ("cars_train/", "cars_test/"), "sun397": ("b/bay/",) * 2}.get(name, ("", ""))
    return {
        split: [
            [f"{above[split == 'test']}class_{label}/{split}_{number}.jpg", label, words]
            for label, words in enumerate(CLASSES)
            for number in range(count)
        ]
        for split, count in sizes.items()
    }


def write_benchmark(root: Path, name: str) -> Path:
    """The benchmark's folder below `root` with three classes of 6, 3 and 2 images."""
    folder = root / CARDS[name].folder
    if name == "imagenet":
        write(folder / "classnames.txt", "".join(f"n0{label} {words}\n" for label, words in enumerate(CLASSES)))
        for label in range(len(CLASSES)):
            for split, count in (("train", SIZES["train"]), ("val", SIZES["test"])):
                for number in range(count):
                    write(folder / "images" / split / f"n0{label}" / f"{split}_{number}.JPEG")
        return folder
    if name == "fgvc_aircraft":
        write(folder / "variants.txt", "\n".join(CLASSES) + "\n")
        number = 0
        for split, count in SIZES.items():
            lines = []
            for words in CLASSES:
                for _ in range(count):
                    number += 1
                    lines.append(f"{number:07d} {words}\n")
                    write(folder / "images" / f"{number:07d}.jpg")
            write(folder / f"images_variant_{split}.txt", "".join(lines))
        return folder
    entries = split_entries(name)
    for path, _, _ in sum(entries.values(), []):
        write(CARDS[name].image_root(root) / path)
    write_split(root, name, entries)
    return folder


def write_split(root: Path, name: str, content) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    return write(root / CARDS[name].folder / CARDS[name].lists[0], text)


def coop_root(tmp_path: Path, name: str, folder: str) -> Path:
    """A data root with the published split of `name` and no images; skips where it is not at hand."""
    file = COOP / folder / CARDS[name].lists[0]
    if not file.is_file():
        pytest.skip("the published splits are not at hand")
    CARDS[name].image_root(tmp_path).mkdir(parents=True)
    shutil.copy(file, tmp_path / CARDS[name].folder)
    return tmp_path
