"""Atomic writes, and lock files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path to write to in the block; afterwards its content is moved to `path`.

    If the block raises, or the process is killed, `path` is unchanged. Each writer has a
    temporary name of its own, so that several may write the same file. Folders are made as
    needed. Raises OSError, which names `path`, for any failure (no space left, no permission).
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())  # otherwise a power cut may leave an empty file
        os.replace(partial, path)
    except Exception as error:  # writers raise their own errors on a full disk
        raise OSError(f"cannot write {path}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: str | Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock file `path` during the block; yields whether another process held it at first.

    The system releases the lock when the process ends, however it does. Without `wait`,
    raises BlockingIOError at once if another process holds it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            waited = False
        except BlockingIOError:
            if not wait:
                raise
            fcntl.flock(file, fcntl.LOCK_EX)
            waited = True
        yield waited
