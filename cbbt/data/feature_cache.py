"""The cache of image features on disk: encoded once, shared by every run that needs them.

Encoding a benchmark's test split takes most of the time of a run on a real model, and
every method and most settings need the same features. They are kept in a folder that
the user names, never among the images:

    <cache>/<box>-<digest>/00003.safetensors     features of images 3 · SHARD … 4 · SHARD − 1

`digest` covers the model, the split and the augmentation (`fingerprint`), so features
of other weights or another split are in another folder and are not read. Every
file is written atomically and describes its content: one that cannot be read, or
describes something else, counts as missing and is replaced. A killed encoding
resumes at the first missing file.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save_file

from cbbt.data.task import DataError, located, mark, split_digest
from cbbt.files import whole_file

SHARD = 1024  # images per file, a multiple of the batch; a kill loses at most this many
LAYOUT = 4  # raised when files, augmentations or the reading of images change, so that older files are not found


def fingerprint(box, items, *, views: int, augmentation: str, mirror: bool, seed: int) -> dict:
    """All that the features of `items` depend on, as a dict that JSON can hold.

    The split is represented by its digest (labels and relative paths), so the location
    of the data does not matter. Neither does the device, although features of a GPU
    and a CPU differ in the last digits.
    """
    return {
        "layout": LAYOUT,
        "box": box.fingerprint(),
        "split": split_digest(tuple(items)),
        "views": views,
        "augmentation": augmentation,
        "mirror": mirror,
        "seed": seed,
    }


class FeatureCache:
    """Features of `views` views of n items, row v · n + i for view v of item i, in shards.

    `folder` is the user's cache folder, made when the first shard is written;
    `drawing` are views, augmentation, mirror and seed.

    Each shard also identifies its image files (`task.mark`): a resized copy of a data
    set, or another one with the same file names, is detected without reading every
    image completely, and replacing one image invalidates only its shards. Raises
    `DataError` for a missing image file.
    """

    def __init__(self, folder: str | Path, box, items, **drawing):
        self.description = fingerprint(box, items, **drawing)
        self.digest = _digest(self.description)
        self.folder = located(folder, "cache") / f"{box.name}-{self.digest}".replace("/", "-")
        self.marks = [mark(item) for item in items]
        self.count, self.width = drawing["views"] * len(items), box.embed_dim

    def spans(self) -> list[range]:
        """Rows of each shard, in order."""
        return [range(start, min(start + SHARD, self.count)) for start in range(0, self.count, SHARD)]

    def read(self, span: range) -> torch.Tensor | None:
        """Features (len(span), E) of one shard, or None if there are no valid ones."""
        try:
            with safetensors.safe_open(self._path(span), framework="pt") as file:
                metadata, features = file.metadata(), file.get_tensor("features")
        except (OSError, safetensors.SafetensorError):
            return None  # missing, truncated or damaged: will be encoded again
        if features.shape != (len(span), self.width) or features.dtype != torch.float32:
            return None
        return features if metadata == self._metadata(span, features) else None

    def write(self, span: range, features: torch.Tensor) -> None:
        """Write the features (len(span), E) of one shard, atomically.

        Raises `DataError` if the folder cannot be written or the disk is full.
        """
        features = features.cpu().contiguous()
        try:
            # Parallel runs, also on several machines, may encode the same shard: each writes a file of its own.
            with whole_file(self._path(span)) as partial:
                save_file({"features": features}, partial, self._metadata(span, features))
        except OSError as error:
            raise DataError(f"cannot write features to {self.folder}: {error}; choose another cache folder") from error

    def _metadata(self, span: range, features: torch.Tensor) -> dict[str, str]:
        """The description of a shard's content, all strings, as safetensors requires."""
        return {
            "fingerprint": json.dumps(self.description, sort_keys=True),
            "rows": str(span),
            "files": _digest([self.marks[row % len(self.marks)] for row in span]),
            "checksum": str(zlib.crc32(features.numpy())),  # safetensors has none of its own
        }

    def _path(self, span: range) -> Path:
        return self.folder / f"{span.start // SHARD:05d}.safetensors"


def require_apart(folder: str | Path, items) -> None:
    """Raises `DataError` if `folder` lies in the images' root of `items`, which holds their class folders."""
    roots = {item.path.parents[max(len(Path(item.key).parts) - 1, 0)] for item in items if item.path is not None}
    cache = os.path.realpath(located(folder, "cache"))
    for images in {os.path.realpath(root) for root in roots}:
        if os.path.commonpath([images, cache]) == images:
            raise DataError(f"the cache {folder} is inside the images' folder {images}; choose a folder outside the data")


def _digest(content) -> str:
    """Sixteen hexadecimal digits of anything JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
