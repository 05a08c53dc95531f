"""Checks of user input: types, ranges, names.

`read_as` reads all values: settings, notebooks' parameters and grid files; every
dataclass of settings checks itself with the other functions.
"""

from __future__ import annotations

import ast
import difflib
import os
import re
from collections import Counter
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Union, get_args, get_origin, get_type_hints

import yaml

WRITTEN = {dict: ", written 'a: 1, b: 2'", list: ", written '[1, 2]' or 'a, b'", tuple: ", written '[a, b]'"}


def read_as(name: str, value, expected):
    """`value` as the type `expected`, or one of types joined by |, from any form in which people pass it.

    NumPy numbers and arrays, paths, tuples and ranges become plain Python. Text is parsed
    if another type is expected: "1e-3", which YAML takes for text, and "16" as numbers,
    "true", and lists and dicts in Python, JSON or YAML: "[1, 2]", "a, b", "{'q': 4}",
    "q: 4, epochs: 2". Whole floats pass as ints, and any int as a float.
    Raises TypeError, which names the expected type and how to write it.
    """
    kinds = get_args(expected) if get_origin(expected) in (Union, UnionType) else (expected,)
    kinds = [get_origin(kind) or kind for kind in kinds]
    given = plain(value)
    for candidates in ([given] * len(kinds), (_converted(given, kind) for kind in kinds)):  # unchanged, or else converted
        for found, kind in zip(candidates, kinds):
            if isinstance(found, kind) and not (isinstance(found, bool) and kind is not bool):
                return found
    names = " or ".join("None" if kind is NoneType else kind.__name__ for kind in kinds)
    quote = "; in quotes, or by papermill's -r, it is text" if str in kinds and isinstance(given, (int, float)) else ""
    raise TypeError(f"{name} must be {names}{WRITTEN.get(kinds[0], '')}, got {value!r}{quote}")


def plain(value):
    """`value` in plain Python, also inside lists and mappings: NumPy values, paths, tuples and ranges as numbers, text, lists."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, (list, tuple, range)) else value


def _converted(value, kind: type):
    """`value` as `kind` if that loses nothing, else unchanged."""
    if isinstance(value, str):
        value = _from_text(value, kind)
    if isinstance(value, bool):
        return value
    if kind is float and isinstance(value, int):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is list and isinstance(value, (int, float)):
        return [value]
    return tuple(value) if kind is tuple and isinstance(value, list) else value


def _from_text(text: str, kind: type):
    """`text` parsed as `kind`; the text itself if it is not of that kind."""
    if kind is bool:
        return {"true": True, "false": False}.get(text.strip().lower(), text)
    if kind in (int, float):
        for number in (int, float):
            try:
                return number(text)
            except ValueError:
                continue
    if kind is dict:
        found = _literal(text)
        if not isinstance(found, dict) and (":" in text or not text.strip()):
            found = _literal("{" + text + "}")
        lost = isinstance(found, dict) and any(value is None and ":" in str(key) for key, value in found.items())  # q:4
        return text if lost else found
    if kind in (list, tuple) and text.lstrip().startswith(("[", "(", "- ")) and isinstance(found := _literal(text), list):
        return found
    if kind is list:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        broken = any(part.count(left) != part.count(right) for part in parts for left, right in ("()", "[]", "{}"))
        return text if broken else [_python(part) for part in parts]
    return text


def _python(text: str):
    """A number or another Python literal, if `text` is one; else the text itself."""
    try:
        return plain(ast.literal_eval(text.strip()))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _literal(text: str):
    """A value written in Python, JSON or YAML; the text itself if it is not one."""
    value = _python(text)
    if value is not text:
        return value
    try:
        return yaml.load(text, _Yaml)
    except (yaml.YAMLError, ValueError):
        return text


class _Yaml(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as in YAML 1.2, and a date is text."""

    yaml_implicit_resolvers = {
        first: [rule for rule in rules if not rule[0].endswith(":timestamp")]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def check_types(settings) -> None:
    """Check a frozen dataclass against its annotations, and set each field as `read_as` reads it.

    Raises TypeError, which names the field and the type expected.
    """
    for name, expected in get_type_hints(type(settings)).items():
        object.__setattr__(settings, name, read_as(name, getattr(settings, name), expected))


def check_ranges(settings, at_least: dict[str, float], positive: tuple[str, ...] = ()) -> None:
    """Raise ValueError for a field below its minimum, or one that should be positive and is not."""
    for name, least in at_least.items():
        if not getattr(settings, name) >= least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(settings, name)}")
    for name in positive:
        if not getattr(settings, name) > 0:
            raise ValueError(f"{name} must be positive, got {getattr(settings, name)}")


def require_distinct(name: str, entries) -> None:
    """Raise ValueError unless there is at least one entry and no duplicate."""
    if not entries:
        raise ValueError(f"{name} is empty: name at least one")
    if twice := [entry for entry, count in Counter(entries).items() if count > 1]:
        raise ValueError(f"{name} has {', '.join(map(str, twice))} twice")


def choose(name: str, value, allowed) -> None:
    """Raise ValueError, naming the choices, unless `value` is one of them."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is unknown, choose from {', '.join(map(str, allowed))}")


def nearest(name: str, valid: list[str]) -> str:
    """For an error message: the valid names nearest to `name`, and all valid names."""
    near = difflib.get_close_matches(name, valid, n=3)
    return f"nearest: {', '.join(near) or 'none'}; valid: {', '.join(valid) or 'none'}"
