"""Class names: the order of folders, names that the user gives, and names with equal prompts.

All names are in Unicode's normal form NFC, which macOS does not use on disk; image files
are opened under the names they have on disk.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping

import lazy_loader
import yaml

from cbbt.box.prompts import fill_template, readable

from .task import DataError, Task, located

pd = lazy_loader.load("pandas")

EXPECTED = "names in label order, a mapping from folders or old names to new ones, or a YAML or JSON file of either"


def nfc(text: str) -> str:
    """`text` in Unicode's composed form, so that equal names are equal strings."""
    return str(unicodedata.normalize("NFC", text))  # NumPy strings become plain ones


def class_order(names) -> list[str]:
    """Names of class folders in label order: by number if all are numbers, else as text."""
    numbered = all(name.isdecimal() for name in names)
    return sorted(names, key=_natural if numbered else None)


def _natural(name: str) -> list:
    """Sort key: digits within a name by their value; equal ones, such as 1 and 01, as text."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)] + [name]


def read_class_names(given) -> tuple[str, ...] | dict[str, str]:
    """Class names as `load_task` takes them: a tuple in label order, or a dict from folder or old name to new.

    `given`: a sequence, a mapping, or the path of a YAML or JSON file of either. In a YAML
    file every value is read as text, so that `010` stays a folder's name and `no` a class.
    Raises `DataError` for anything else, and for names that are empty or not text.
    """
    if isinstance(given, (str, os.PathLike)):
        given = _from_file(given)
    if isinstance(given, Mapping):
        keys = [nfc(str(key)) for key in given]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise DataError(f"class_names names the class {twice[0]!r} twice")
        return dict(zip(keys, map(_checked, given.values())))
    if not isinstance(given, Iterable) or isinstance(given, (set, frozenset, bytes)):
        raise DataError(f"class_names should be {EXPECTED}, got {given!r}")
    return tuple(map(_checked, given))


def _from_file(path):
    file = located(path, "class_names")
    if not file.is_file():
        raise DataError(f"class_names: there is no file {file}; expected {EXPECTED}")
    try:
        text = file.read_text(encoding="utf-8-sig")
        content = json.loads(text) if file.suffix.lower() == ".json" else yaml.load(text, yaml.BaseLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"class_names: cannot read {file}: {' '.join(str(error).split())}") from error
    if not isinstance(content, (list, dict)):
        raise DataError(f"class_names: expected a list or a mapping in {file}, got {content!r:.80}")
    return content


def _checked(name) -> str:
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"class_names should be non-empty strings, got {name!r} (in YAML quote numbers, yes and no)")
    return nfc(name)


def new_names(found: tuple[str, ...], given, folders: bool) -> tuple[str, ...]:
    """The names of `given` (see `read_class_names`) for the classes `found`, in label order.

    Raises `DataError` for a wrong number of names, an unknown class, a number left as a
    name, and names in label order for `folders` whose order as text and by number differ.
    """
    given = read_class_names(given)
    if isinstance(given, dict):
        if unknown := [name for name in given if name not in found]:
            raise DataError(f"class_names renames the unknown class {unknown[0]!r}; choose from {_some(found)}")
        if left := [name for name in found if name not in given and name.isdecimal()]:
            raise DataError(f"class_names omits {_some(left)}: a number means nothing to a model, name every class")
        return tuple(given.get(name, name) for name in found)
    if len(given) != len(found):
        got = f"{len(given)}: {_some(given)}"
        raise DataError(f"class_names should be {len(found)} names in label order, or a mapping, got {got}")
    if folders and list(found) != (by_number := sorted(found, key=_natural)):
        was, would = next((a, b) for a, b in zip(found, by_number) if a != b)
        raise DataError(
            f"class_names in label order may fit the wrong classes: sorted as text, {was!r} is where {would!r} is by number; "
            f"give a mapping, such as {{{was!r}: name, …}}"
        )
    return given


def require_distinct(class_names) -> None:
    """Raises `DataError`, which names both, for two classes with the same prompt; also for a name that is empty in it or cuts it.

    Underscores, white space and Unicode's forms make no difference in a prompt. Further names
    that are equal to a tokenizer are found by `require_distinct_prompts`.
    """
    first: dict[str, str] = {}
    for name in class_names:
        try:
            words = " ".join(readable(name).split())
        except ValueError as error:
            raise DataError(f"the class name {error}; set another by class_names") from None
        if not words:
            raise DataError(f"the class name {name!r} is empty in a prompt; set another by class_names")
        if words in first:
            raise DataError(_one_prompt(first[words], name))
        first[words] = name


def require_distinct_prompts(task: Task, box) -> None:
    """Raises `DataError`, which names both, if two classes of `task` are the same tokens to `box`; no query.

    CLIP's tokenizer ignores case. CoOp's list for ImageNet has two such pairs (missile,
    sunglasses): benchmarks only warn, so that published numbers can be repeated.
    """
    first: dict[bytes, str] = {}
    takes_tokens = "token embeddings" in box.access
    for name in task.class_names:
        plain = readable(name)  # CLIP's tokenizer ignores case; that of a remote model is unknown
        tokens = box.token_embeddings(plain).cpu().numpy().tobytes() if takes_tokens else plain.encode()
        if tokens not in first:
            first[tokens] = name
        elif task.test and task.test[0].own:
            raise DataError(_one_prompt(first[tokens], name))
        else:
            warnings.warn(f"{task.name}: {_one_prompt(first[tokens], name)}", stacklevel=2)


def _one_prompt(one: str, other: str) -> str:
    return f"the classes {one!r} and {other!r} have the same prompt, so no model can tell them apart; rename one by class_names"


def class_table(task: Task) -> pd.DataFrame:
    """One row per class, in label order: the folder or original name, the name, and the hand-written prompt."""
    columns = {
        "found as": task.found_names or task.class_names,
        "name": task.class_names,
        "prompt": fill_template(task.template, task.class_names),
    }
    return pd.DataFrame(columns)


def _some(names, most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
