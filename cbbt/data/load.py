"""`load_task`: loads embedded tasks, the eleven benchmarks and user folders."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from dataclasses import replace
from numbers import Integral
from pathlib import Path

from cbbt.box.prompts import unmarked

from .benchmarks import read_benchmark, require_lists
from .cached_shots import read_cached_shots
from .cards import CARDS, EMBEDDED
from .folders import read_folder
from .names import new_names, require_distinct
from .task import DataError, Item, Task, draw_shots, located
from .torchvision_splits import read_torchvision_split

READERS = {"coop": read_benchmark, "torchvision": read_torchvision_split}


def load_task(
    name,
    shots: int | None = None,
    seed: int = 1,
    root=None,
    *,
    split: str = "coop",
    template: str | None = None,
    class_names=None,
    cached_shots: bool = False,
) -> Task:
    """The task `name`, with `shots` training images per class drawn for `seed`.

    `name`: an embedded task (digits, landcover, textures, shapes), one of the
    eleven benchmarks of `cbbt.data.CARDS`, or the path of a folder of class
    folders (`cbbt.data.folders`; write ./dtd for a folder that has a benchmark's
    name).
    `shots`: None gives the full splits, 0 only the test split (zero-shot), k
    gives k training and min(k, 4) validation images per class, the ones CoOp
    draws for that seed (`draw_shots`); a class may have fewer for validation.
    `root`: the data folder that holds the benchmarks' folders. In every path ~ is the home folder.
    `split`: of a benchmark, "coop" or "torchvision" (`torchvision_splits`; numbers
    on the two are not comparable).
    `cached_shots`: use the set that CoOp or BlackVIP saved next to the images
    instead of drawing one (`cached_shots`).
    `template`: a sentence with `{}`; `class_names`: new names, in label order or as a
    mapping from folders or old names, or a YAML or JSON file (`names.read_class_names`).
    Folders whose names are numbers are sorted by number.

    Raises `DataError` for an unknown name, absent or malformed data, a drawn image
    that is missing, a class with fewer than `shots` training images, and two
    classes with the same name. Test images are checked when they are opened.
    """
    _require_count("shots", shots, optional=True)
    _require_count("seed", seed)
    task = _full_task(name, root, split)
    if cached_shots and (name not in CARDS or split != "coop" or not shots):
        got = f"{name}, {split!r} and {shots}"
        raise DataError(f"cached_shots needs a benchmark, the split 'coop' and shots from 1, got {got}")
    if cached_shots:
        train, val = read_cached_shots(CARDS[name], root, task, shots, seed)
    elif shots is None:
        train, val = task.train, task.val
    else:
        _require_enough(task, shots)
        train, val = draw_shots(task.train, task.val, shots, seed)
    if shots:
        _require_files(train + val)
    return _with_words(replace(task, train=train, val=val), template, class_names, folders=name not in (*EMBEDDED, *CARDS))


def _full_task(name, root, split: str) -> Task:
    if not isinstance(name, (str, Path)):
        raise DataError(f"the task's name should be a string or a path, got {name!r}")
    if split not in tuple(READERS):
        raise DataError(f"split {split!r} is unknown: choose from {', '.join(READERS)}")
    if split != "coop" and name not in CARDS:
        raise DataError(f"split={split!r} is only for benchmarks, got the task {name}: choose from {', '.join(CARDS)}")
    if name in EMBEDDED:
        from .embedded import embedded_task  # imports scipy: only when needed

        return embedded_task(name)
    if name in CARDS:
        if root is None:
            raise DataError(
                f"{name} needs your copy of the data: pass root (data_root in a configuration), "
                f"the folder that holds {CARDS[name].layout()}"
            )
        return READERS[split](CARDS[name], located(root, "root"))
    require_known(name)
    return read_folder(name)


def require_known(name: str | Path) -> None:
    """Raises `DataError`, naming the choices, unless `name` is a task, a benchmark or a folder; reads nothing."""
    # An empty name would be the working directory.
    if name not in (*EMBEDDED, *CARDS) and not (str(name).strip() and os.path.isdir(located(name))):
        raise DataError(_unknown(str(name)))


def require_data(name: str | Path, root=None, split: str = "coop") -> None:
    """Raises `DataError`, which says what is missing, unless the data of a task exist; opens no image.

    Looks for a folder, or for a benchmark's folder and lists below `root`.
    """
    require_known(name)
    if name not in CARDS:
        return
    if not root:
        raise DataError(_no_root(name))
    if split == "coop":
        require_lists(CARDS[name], Path(root).expanduser())
    elif not (folder := Path(root).expanduser().absolute() / CARDS[name].folder).is_dir():
        raise DataError(f"{name} is not in {root}: expected the folder {folder}")


def _no_root(name: str) -> str:
    return (
        f"{name} needs your copy of the data: pass root (data_root in a configuration), "
        f"the folder that holds {CARDS[name].layout()}"
    )


def _unknown(name: str) -> str:
    choices = (*EMBEDDED, *CARDS)
    plain = {choice.replace("_", ""): choice for choice in choices}
    near = difflib.get_close_matches(name.lower().replace("_", "").replace("-", ""), plain, n=3, cutoff=0.5)
    guess = f" Did you mean {' or '.join(plain[word] for word in near)}?" if near else ""
    looked = f" ({located(name)} is not a folder)" if name.strip() else ""
    return (
        f"there is no task or folder {name!r}{looked}.{guess} Choose from {', '.join(choices)}, "
        "or give the path of a folder with one folder of images per class."
    )


def _require_count(name: str, value, optional: bool = False) -> None:
    if value is None and optional:
        return
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
        raise DataError(f"{name} should be an integer from 0{', or None' * optional}, got {value!r}")


def _require_enough(task: Task, shots: int) -> None:
    # CoOp silently takes all that a class has; a "16-shot" number would then be of fewer shots.
    counts = Counter(item.label for item in task.train)
    for label, name in enumerate(task.class_names):
        if counts[label] < shots:
            raise DataError(
                f"shots={shots}, but class {name!r} of {task.name} has {counts[label]} training images; "
                f"choose shots up to {min(counts[label] for label in range(len(task.class_names)))}"
            )


def _require_files(items: tuple[Item, ...]) -> None:
    missing = [item.path for item in items if item.path is not None and not os.path.isfile(item.path)]
    if missing:
        raise DataError(f"{len(missing)} of {len(items)} drawn images are missing, first {missing[0]}")


def _with_words(task: Task, template: str | None, class_names, folders: bool) -> Task:
    """`task` with another template or other class names, checked; `folders`: whether its classes are a user's folders."""
    if template is not None:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise DataError(f"template should hold one {{}} for the class name, got {template!r}")
        try:
            unmarked(template)
        except ValueError as error:
            raise DataError(f"template {error}") from None
        task = replace(task, template=template)
    if class_names is not None:
        names = new_names(task.class_names, class_names, folders)
        splits = {
            split: tuple(replace(item, class_name=names[item.label]) for item in getattr(task, split))
            for split in ("train", "val", "test")
        }
        task = replace(task, class_names=names, found_names=task.class_names, **splits)
    if folders or class_names is not None:
        require_distinct(task.class_names)
    return task
