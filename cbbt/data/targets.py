"""Further test sets for a fitted model: new classes, other data sets, shifted images.

The rules are those of the field. *Base to new* (CoOp and CoCoOp, Zhou et al., 2022;
github.com/KaiyangZhou/CoOp, `subsample_classes`): the shots are sampled on all classes
first; then the first ⌈n/2⌉ labels are the base classes, the others the new ones, either
half numbered from 0, and the new ones are classified among themselves. *Across data
sets*: the other task's own class names and its whole test split. *Shift*: the same
classes, other images. No target is read by a fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from .cards import EMBEDDED
from .folders import listing
from .load import load_task, require_known
from .shifts import OPERATIONS, relabelled, shifted
from .task import DataError, Item, Task

CLASSES = ("all", "base")
STYLE, NEW = "style", "new"
IMAGENET_SHIFTS = {  # folder below the data root; class folders are numbers in the first, wnids in the others
    "imagenetv2": "imagenetv2/imagenetv2-matched-frequency-format-val",  # Recht et al., ICML 2019
    "imagenet-sketch": "imagenet-sketch/images",  # Wang et al., NeurIPS 2019
    "imagenet-a": "imagenet-adversarial/imagenet-a",  # Hendrycks et al., CVPR 2021; 200 classes
    "imagenet-r": "imagenet-rendition/imagenet-r",  # Hendrycks et al., ICCV 2021; 200 classes
}
SHIFTS = (STYLE, *OPERATIONS, *IMAGENET_SHIFTS)


@dataclass(frozen=True)
class Target:
    """Test images and the classes to choose from.

    class_names, template: in label order, and the hand-written sentence. rows: for
    each class its row among those that the model was fitted on; None if the classes are others.
    """

    name: str
    items: tuple[Item, ...]
    class_names: tuple[str, ...]
    template: str
    rows: tuple[int, ...] | None = None


def half_of(task: Task, part: str) -> Task:
    """The "base" or the "new" half of a task's classes, all three splits filtered and relabelled; the task itself for "all"."""
    if part == "all":
        return task
    count = len(task.class_names)
    middle = (count + 1) // 2
    kept = range(middle) if part == "base" else range(middle, count)
    labels = {label: number for number, label in enumerate(kept)}
    names = {name: getattr(task, name)[kept.start : kept.stop] for name in ("class_names", "found_names")}
    return replace(task, **names, **{split: relabelled(getattr(task, split), labels) for split in ("train", "val", "test")})


def check_target(name: str, dataset: str, classes: str) -> None:
    """Raise ValueError for an unknown target, or one not defined for this data set and these classes; reads no image."""
    if name == NEW:
        if classes != "base":
            raise ValueError("the target 'new' needs classes='base': a model fitted on all classes has no new ones")
    elif name in IMAGENET_SHIFTS:
        if (dataset, classes) != ("imagenet", "all"):
            raise ValueError(f"the target {name!r} needs dataset='imagenet' and classes='all', got {dataset!r} and {classes!r}")
    elif name == STYLE:
        if dataset not in EMBEDDED:
            raise ValueError(f"the target 'style' is drawn for {', '.join(EMBEDDED)}, not for {dataset!r}")
    elif name == dataset:
        raise ValueError(f"the target {name!r} is the data set itself, on which every run is evaluated")
    elif name not in OPERATIONS:
        try:
            require_known(name)
        except DataError as error:
            raise ValueError(f"target {name!r} is unknown, choose from {', '.join((NEW, *SHIFTS))}, or: {error}") from None


def find_target(name: str, whole: Task, part: str, root=None) -> Target:
    """The target `name` of a model fitted on the half `part` of the classes of `whole`, the task with all its classes.

    Opens no image. root: the data folder, for benchmarks. Raises `DataError` for missing data.
    """
    if name == NEW:
        half = half_of(whole, NEW)
        return Target(name, half.test, half.class_names, half.template)
    if name not in SHIFTS:
        task = load_task(name, shots=0, root=root)
        return Target(name, task.test, task.class_names, task.template)
    task = half_of(whole, part)
    if name in IMAGENET_SHIFTS:
        items, rows = _imagenet_shift(name, task, root)
        return Target(name, items, tuple(task.class_names[row] for row in rows), task.template, rows)
    if name == STYLE:
        from .embedded import restyled  # imports scipy: only when needed

        items = half_of(replace(whole, test=restyled(whole.name)), part).test
    else:
        items = shifted(task.test, name)
    return Target(name, items, task.class_names, task.template, tuple(range(len(task.class_names))))


def _imagenet_shift(name: str, task: Task, root) -> tuple[tuple[Item, ...], tuple[int, ...]]:
    """Images of the folders of `name`, labelled in the order of their classes, and those classes' rows in ImageNet.

    A class is found by its wnid, never by its name, which several may share. Files next to the class folders are ignored.
    """
    folder = Path(root).expanduser() / IMAGENET_SHIFTS[name]
    if not folder.is_dir():
        raise DataError(f"{name} is not in {root}: expected the folder {folder}")
    wnids = {item.key.split("/")[1]: item.label for item in task.test}  # test images lie in val/<wnid>/
    row_of = {str(row): row for row in wnids.values()} if name == "imagenetv2" else wnids
    folders = listing(folder).folders
    if unknown := [found for found in folders if found not in row_of]:
        raise DataError(f"{folder} holds {len(unknown)} folders that are not classes of ImageNet, first {unknown[0]}")
    if not folders:
        raise DataError(f"{folder} holds no class folder")
    rows = tuple(sorted(row_of[found] for found in folders))
    label_of = {row: label for label, row in enumerate(rows)}
    items = []
    for found, path in sorted(folders.items(), key=lambda entry: row_of[entry[0]]):
        images, label = listing(path).images, label_of[row_of[found]]
        if not images:
            raise DataError(f"the class folder {path} holds no image")
        items += [Item(label, task.class_names[rows[label]], path=p, key=f"{found}/{image}") for image, p in images.items()]
    return tuple(items), rows
