"""The origin of a run's numbers besides its configuration: images, weights, the method's code.

A run is named only by its configuration, so it has the same name on every machine, and a
folder of images the same name at every path. These digests tell whether the files stored
under that name come from the same images and weights.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cbbt.box.weights import weights_file
from cbbt.data.targets import Target
from cbbt.data.task import Task, files_digest
from cbbt.methods import METHODS
from cbbt.mini_clip.model import WEIGHTS as MINI_WEIGHTS
from cbbt.photo_clip.model import WEIGHTS as PHOTO_WEIGHTS
from cbbt.runs.config import RunConfig

SHIPPED = {"mini": MINI_WEIGHTS, "photo": PHOTO_WEIGHTS}


class StaleRecord(ValueError):
    """The stored files of a run come from other images or weights than the current ones."""


def origin_of(config: RunConfig, task: Task, targets: list[Target], elsewhere: bool) -> dict[str, str | None]:
    """Digests, sixteen hexadecimal digits each, of what a run depends on.

    images: of the drawn shots, the judged split and the targets (`cbbt.data.task.files_digest`).
    weights: of the file; None for a published tag or random weights, which their name identifies. Omitted for a
        model that is `elsewhere`: its fingerprint is known once it is queried.
    method: of the module with the method's `fit`; None without source.
    """
    digests = {
        "images": files_digest(replace(task, test=sum((target.items for target in targets), task.test))),
        "method": _source_digest(METHODS[config.method].fit),
    }
    return digests if elsewhere else digests | {"weights": _weights_digest(config)}


def require_same_origin(then: dict, now: dict, folder: Path) -> None:
    """Raise `StaleRecord` if the images or weights differ; warn if the method's code does.

    `then` is the origin stored in `folder`, `now` the current one. Entries missing in `then` are not compared.
    """
    for name, happened in (
        ("images", "images were added, replaced or relabelled"),
        ("weights", "the weights file was replaced, or another model is served"),
    ):
        if name in now and then.get(name, now[name]) != now[name]:
            raise StaleRecord(
                f"{folder} holds a run of other {name} (digest {then[name]}, now {now[name]}): {happened}, or it is another "
                f"data set or file of the same name. Remove that folder to run it again, or choose another folder of runs"
            )
    if then.get("method", now["method"]) != now["method"]:
        warnings.warn(
            f"{folder} holds a run made before its method's code was edited: it is kept; remove that folder to run it again",
            stacklevel=3,
        )


def _weights_digest(config: RunConfig) -> str | None:
    shipped = SHIPPED.get(config.backbone) if config.pretrained == "default" else None
    file = shipped or weights_file(config.pretrained)
    return None if file is None else _file_digest(file, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _file_digest(file: Path, changed: int) -> str:
    """Digest of the file's content, cached until the file is `changed`."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


def _source_digest(fit: Callable) -> str | None:
    try:
        source = inspect.getsource(inspect.getmodule(fit) or fit)
    except (OSError, TypeError):
        return None
    return hashlib.sha256(source.encode()).hexdigest()[:16]
