"""Preprocessed images, for methods that change them before they are encoded."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from cbbt.box.memory import chunk_size

BATCH = 256  # images per batch


class Pixels:
    """Preprocessed images of a split, float32 (n, 3, H, W), read on demand.

    A split that fits into a query's share of the memory is kept once it has been
    read. `preprocess` is the box's test-time transform. Raises `DataError` for an
    image that cannot be read.
    """

    def __init__(self, items, preprocess):
        self.items, self.preprocess = items, preprocess
        self.kept: dict[int, torch.Tensor] | None = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, rows) -> torch.Tensor:
        """Images (len(rows), 3, H, W) of a sequence or tensor of row numbers."""
        return torch.stack([self._image(int(row)) for row in rows])

    def batches(self) -> Iterator[torch.Tensor]:
        """All images in order, a batch at a time."""
        for rows in torch.arange(len(self)).split(BATCH):
            yield self[rows]

    def _image(self, row: int) -> torch.Tensor:
        if self.kept is not None and row in self.kept:
            return self.kept[row]
        image = self.preprocess(self.items[row].image())
        if self.kept is not None and len(self) > chunk_size(torch.device("cpu"), image.numel() * image.element_size()):
            self.kept = None
        if self.kept is not None:
            self.kept[row] = image
        return image
