"""Few-shot sets that CoOp or BlackVIP left on disk, unpickled safely.

Both write `<folder>/split_fewshot/shot_{k}-seed_{s}.pkl`, a pickle of lists of
Dassl's `Datum` with absolute paths of the machine that wrote it. Unpickling can run
any code; here only that class, under its two paths, is read, into a plain stub, and
every other global is refused. Images are looked up in the current root and must have
the same split and label. Nothing is written.
"""

from __future__ import annotations

import pickle

from .cards import Card
from .task import DataError, Item, Task, located

DATUM_MODULES = ("dassl.data.datasets.base_dataset", "my_dassl.data.datasets.base_dataset")  # CoOp, BlackVIP


class Datum:
    """Replaces Dassl's Datum: it only holds what the pickle assigns to it."""


class _DatumUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if module in DATUM_MODULES and name == "Datum":
            return Datum
        raise pickle.UnpicklingError(f"refused the global {module}.{name}; only Dassl's Datum is allowed")


def read_cached_shots(card: Card, root, task: Task, shots: int, seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """(train items, val items) as cached for `shots` and `seed`, in the cache's order.

    `task` holds the full splits of `card`; cached images are looked up in them by
    their path in the images' folder. The cache of ImageNet has no val.
    Raises `DataError` when there is no such cache, when it holds anything but
    lists of Datum, or an image that is not in the split with that label.
    """
    file = located(root, "root") / card.folder / "split_fewshot" / f"shot_{shots}-seed_{seed}.pkl"
    if not file.is_file():
        raise DataError(f"{card.name}: no cached shots at {file}; omit cached_shots to draw them by CoOp's rule")
    try:
        with file.open("rb") as stream:
            content = _DatumUnpickler(stream).load()
    except Exception as error:  # a broken pickle raises almost anything
        raise DataError(f"cannot read the cached shots {file}: {error}") from error
    if not isinstance(content, dict) or "train" not in content or not set(content) <= {"train", "val"}:
        raise DataError(f"{file}: expected a dict with train and val, got {_kind(content)}")
    train = _found(content["train"], task.train, card, f"{file}, train")
    return train, _found(content.get("val", []), task.val, card, f"{file}, val")


def _found(cached, items: tuple[Item, ...], card: Card, where: str) -> tuple[Item, ...]:
    if not isinstance(cached, list) or not all(type(datum) is Datum for datum in cached):
        raise DataError(f"{where}: expected a list of Datum, got {_kind(cached)}")
    by_key = {item.key: item for item in items}
    marker = f"/{card.folder}/{card.images}/".replace("//", "/")  # what follows it is relative
    found = []
    for datum in cached:
        path, label = (vars(datum).get(name) for name in ("_impath", "_label"))
        _, _, key = str(path).replace("\\", "/").rpartition(marker)
        item = by_key.get(key)
        if item is None or item.label != label:
            raise DataError(f"{where}: {path!r} with label {label!r} is not an image of that split of {card.name}")
        found.append(item)
    return tuple(found)


def _kind(value) -> str:
    return f"a dict with {', '.join(map(str, value))}" if isinstance(value, dict) else type(value).__name__
