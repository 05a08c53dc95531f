"""Class names: the order of folders, names that the user gives, and names with equal prompts.

All names are in the normal form NFC, which macOS does not write; image files are
opened under the names they have on disk.
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
    """`text` in Unicode's composed form, so that one name is one text."""
    return str(unicodedata.normalize("NFC", text))  # NumPy's texts become plain ones


def class_order(names) -> list[str]:
    """Names of class folders in label order: by number if all are numbers, else as text."""
    numbered = all(name.isdecimal() for name in names)
    return sorted(names, key=_natural if numbered else None)


def _natural(name: str) -> list:
    """Sorts digits within a name by their value; equal ones, as 1 and 01, as text."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)] + [name]


def read_class_names(given) -> tuple[str, ...] | dict[str, str]:
    """Names of classes as `load_task` takes them: a tuple in label order, or a dict from folder or old name to new.

    `given`: a sequence, a mapping, or the path of a YAML or JSON file of either. In a YAML
    file everything is text, so that `010` stays a folder's name and `no` a class.
    Raises `DataError` for anything else, and for names that are empty or no text.
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
        raise DataError(f"class_names should be texts that are not empty, got {name!r} (in YAML quote numbers, yes and no)")
    return nfc(name)


def new_names(found: tuple[str, ...], given, folders: bool) -> tuple[str, ...]:
    """The names of `given` (see `read_class_names`) for the classes `found`, in label order.

    Raises `DataError` for another number of names, a class that is not there, a number left
    as a name, and names in label order for `folders` that text and numbers order differently.
    """
    given = read_class_names(given)
    if isinstance(given, dict):
        if unknown := [name for name in given if name not in found]:
            raise DataError(f"class_names renames {unknown[0]!r}, which is no class; choose from {_some(found)}")
        if left := [name for name in found if name not in given and name.isdecimal()]:
            raise DataError(f"class_names leaves out {_some(left)}: a number tells a model nothing, name every class")
        return tuple(given.get(name, name) for name in found)
    if len(given) != len(found):
        got = f"{len(given)}: {_some(given)}"
        raise DataError(f"class_names should be {len(found)} names in label order, or a mapping, got {got}")
    if folders and list(found) != (by_number := sorted(found, key=_natural)):
        was, would = next((a, b) for a, b in zip(found, by_number) if a != b)
        raise DataError(
            f"class_names in label order may land on wrong classes: as text {was!r} stands where {would!r} would by number; "
            f"give a mapping, such as {{{was!r}: name, …}}"
        )
    return given


def require_distinct(class_names) -> None:
    """Raises `DataError`, which names both, for two classes with one prompt; also for a name that leaves it empty or cuts it.

    Underscores, white space and Unicode's forms make no difference in a prompt. What a tokenizer
    takes for equal beside these is found by `require_distinct_prompts`.
    """
    first: dict[str, str] = {}
    for name in class_names:
        try:
            words = " ".join(readable(name).split())
        except ValueError as error:
            raise DataError(f"the class name {error}; class_names gives it another") from None
        if not words:
            raise DataError(f"the class name {name!r} leaves the prompt empty; class_names gives it another")
        if words in first:
            raise DataError(_one_prompt(first[words], name))
        first[words] = name


def require_distinct_prompts(task: Task, box) -> None:
    """Raises `DataError`, which names both, if two classes of `task` are the same tokens to `box`; no query.

    CLIP's tokenizer knows no capitals. ImageNet has two such pairs in CoOp's list (missile,
    sunglasses): for benchmarks it is a warning, so that published numbers can be repeated.
    """
    first: dict[bytes, str] = {}
    takes_tokens = "token embeddings" in box.access
    for name in task.class_names:
        plain = readable(name)  # CLIP's tokenizer knows no capitals; others are not known
        tokens = box.token_embeddings(plain).cpu().numpy().tobytes() if takes_tokens else plain.encode()
        if tokens not in first:
            first[tokens] = name
        elif task.test and task.test[0].own:
            raise DataError(_one_prompt(first[tokens], name))
        else:
            warnings.warn(f"{task.name}: {_one_prompt(first[tokens], name)}", stacklevel=2)


def _one_prompt(one: str, other: str) -> str:
    return f"the classes {one!r} and {other!r} have one prompt, so no model tells them apart; class_names gives them others"


def class_table(task: Task) -> pd.DataFrame:
    """One row per class, in label order: the folder or name as found, the name, and the hand-written prompt."""
    columns = {
        "found as": task.found_names or task.class_names,
        "name": task.class_names,
        "prompt": fill_template(task.template, task.class_names),
    }
    return pd.DataFrame(columns)


def _some(names, most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
