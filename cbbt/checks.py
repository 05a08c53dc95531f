"""Checks that every dataclass of settings makes of itself: types, ranges, names."""

from __future__ import annotations

import difflib
from typing import get_type_hints


def check_types(settings) -> None:
    """Check a frozen dataclass against its annotations; whole numbers become floats where those are expected.

    Raises TypeError, which names the field and the type expected.
    """
    for name, expected in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if expected is float or expected == float | None:
            if isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(settings, name, value := float(value))
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
            raise TypeError(f"{name} must be {getattr(expected, '__name__', expected)}, got {value!r}")


def check_ranges(settings, at_least: dict[str, float], positive: tuple[str, ...] = ()) -> None:
    """Raise ValueError for a field below its least value, or one that should be positive and is not."""
    for name, least in at_least.items():
        if not getattr(settings, name) >= least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(settings, name)}")
    for name in positive:
        if not getattr(settings, name) > 0:
            raise ValueError(f"{name} must be positive, got {getattr(settings, name)}")


def choose(name: str, value, allowed) -> None:
    """Raise ValueError, naming the choices, unless `value` is one of them."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is unknown, choose from {', '.join(allowed)}")


def nearest(name: str, valid: list[str]) -> str:
    """For an error text: the valid names nearest to `name`, and all of them."""
    near = difflib.get_close_matches(name, valid, n=3)
    return f"nearest: {', '.join(near) or 'none'}; valid: {', '.join(valid) or 'none'}"
