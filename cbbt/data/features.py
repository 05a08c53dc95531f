"""Encoding of a task's images into features of a black box.

`encode_items` gives one feature per image; `encode_views` gives several augmented
views of each training shot. Every view draws from a generator of its own, so the
features do not depend on the order of work or on the number of workers.

With `cache`, a folder, features are kept in shards (see `feature_cache`) and read
back. **The ledger is charged the same either way**: what a method costs does not
depend on whether the images were encoded before. The queries that the box really
answered are counted by `Ledger.asked()`, to which cached features add nothing.
"""

from __future__ import annotations

from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from cbbt.data.augment import Augmentation
from cbbt.data.feature_cache import FeatureCache, require_apart
from cbbt.data.task import DataError
from cbbt.seeding import generator_for

MANY = 256  # fewer images show no progress bar: each bar costs a notebook a dozen messages
BATCH = 64  # images per query; not an option, because it affects the last bits of a feature


class _Views(Dataset):
    """Pixels of view v of item i at index v · len(items) + i, or the error of its image."""

    def __init__(self, items, augmentation: Augmentation, views: int, seed: int):
        self.items, self.augmentation, self.views, self.seed = items, augmentation, views, seed

    def __len__(self) -> int:
        return self.views * len(self.items)

    def __getitem__(self, index: int) -> torch.Tensor | DataError:
        view, item = divmod(index, len(self.items))
        generator = generator_for(self.seed, "view", view, item)
        try:
            return self.augmentation(self.items[item].image(), generator)
        except DataError as error:  # returned, not raised: a worker would wrap it into its traceback
            return error


def encode_views(
    box,
    items,
    *,
    views: int,
    augmentation: str,
    mirror: bool,
    seed: int,
    cache: str | Path | None = None,
    workers: int = 0,
    progress: bool = False,
) -> torch.Tensor:
    """Raw features (views, n, E) of augmented views of n items, on the box's device.

    Costs views · n images in the ledger, read from `cache` or not. `workers`
    processes decode and augment while the box works; pixels of a few batches are
    in memory at a time. `progress` shows images per second, from `MANY` images on.

    Raises `DataError` as soon as an image cannot be read, naming it and how many
    were read before (finished shards are kept), and if `cache` is inside the images' folder;
    RuntimeError if a worker dies, as it does when memory runs out.
    """
    if not isinstance(workers, Integral) or isinstance(workers, bool) or workers < 0:
        raise ValueError(f"workers must be a whole number from 0, got {workers!r}")
    dataset = _Views(items, Augmentation(box.preprocess_config, augmentation, mirror), views, seed)
    shown = progress and len(dataset) >= MANY
    with tqdm(total=len(dataset), desc="encode images", unit="image", delay=3, disable=not shown) as bar:
        if cache is None:
            features = _encode(box, dataset, range(len(dataset)), workers, bar)
        else:
            require_apart(cache, items)
            drawing = {"views": views, "augmentation": augmentation, "mirror": mirror, "seed": seed}
            kept = FeatureCache(cache, box, items, **drawing)
            features = _encode_missing(box, dataset, kept, workers, bar)
    return features.view(views, len(items), box.embed_dim)


def encode_items(box, items, **options) -> torch.Tensor:
    """Raw features (n, E) of n items under the test-time transform; n images."""
    return encode_views(box, items, views=1, augmentation="none", mirror=False, seed=0, **options)[0]


def _encode_missing(box, dataset: _Views, kept: FeatureCache, workers: int, bar) -> torch.Tensor:
    """Features (rows, E): cached shards are read, the others encoded and written."""
    features = torch.empty(len(dataset), box.embed_dim, device=box.device)
    missing = []
    for span in kept.spans():
        shard = kept.read(span)
        if shard is None:
            missing.append(span)
            continue
        box.ledger.charge("images", len(span), answered=False)
        features[span.start : span.stop] = shard.to(box.device)
    # Cached images count as done from the start, so that the rate covers only those encoded now.
    bar.initial = bar.n = len(dataset) - sum(map(len, missing))
    bar.refresh()
    for span in missing:
        shard = _encode(box, dataset, span, workers, bar)
        kept.write(span, shard)
        features[span.start : span.stop] = shard
    return features


def _encode(box, dataset: _Views, span: range, workers: int, bar) -> torch.Tensor:
    """Features (len(span), E) of some rows, one query per batch."""
    # A generator of its own, so that a loader does not advance the global random stream.
    loader = DataLoader(Subset(dataset, span), BATCH, num_workers=workers, collate_fn=_stack, generator=torch.Generator())
    features, done = [torch.empty(0, box.embed_dim, device=box.device)], span.start
    try:
        for count, content in loader:
            if isinstance(content, DataError):
                raise DataError(f"{content} ({done + count} of {len(dataset)} views of images were read before it)")
            features.append(box.encode_images(torch.from_numpy(content), normalize=False))
            done += count
            bar.update(count)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise RuntimeError(
            f"one of the {workers} workers that decode images died, perhaps out of memory: set workers lower, or to 0"
        ) from error
    return torch.cat(features)


def _stack(views: list) -> tuple[int, np.ndarray | DataError]:
    """(B, pixels (B, 3, H, W)), or the number of views before the first error, and that error.

    An array goes from a worker through a pipe; a tensor would go through /dev/shm, which in a
    container has 64 MB unless it was started with --shm-size, and hangs when that is full.
    """
    for place, view in enumerate(views):
        if isinstance(view, DataError):
            return place, view
    return len(views), torch.stack(views).numpy()
