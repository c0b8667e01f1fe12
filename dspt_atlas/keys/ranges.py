"""The allowed values of configuration keys."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Allowed:
    """A test of a value, and the words between "Expected KEY" and "got VALUE"."""

    is_possible: Callable[[Any], bool] = field(compare=False)
    words: str


def at_least(least: float) -> Allowed:
    """Allow numbers from `least` on."""
    return Allowed(lambda value: value >= least, f"to be at least {least}")


def finite(least: float) -> Allowed:
    """Allow finite numbers from `least` on."""
    return Allowed(lambda value: least <= value < math.inf, f"to be a finite number of at least {least}")


def positive() -> Allowed:
    """Allow finite numbers above 0."""
    return Allowed(lambda value: 0 < value < math.inf, "above 0")


def fraction() -> Allowed:
    """Allow numbers above 0 and up to 1."""
    return Allowed(lambda value: 0 < value <= 1, "in (0, 1]")


def share() -> Allowed:
    """Allow numbers from 0 to 1."""
    return Allowed(lambda value: 0 <= value <= 1, "in [0, 1]")


def one_of(*choices: str) -> Allowed:
    """Allow some words."""
    return Allowed(lambda value: value in choices, f"to be one of {', '.join(choices)}")


def numbers(count: int, is_possible: Callable, words: str) -> Allowed:
    """Allow a sequence of so many finite numbers, with a further condition."""

    def are_possible(values):
        return len(values) == count and all(map(_is_finite, values)) and is_possible(values)

    return Allowed(are_possible, f"to be {words}")


def _is_finite(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def whole_number(text: str) -> int | None:
    """Return the whole number of at least 0 in a text of digits, or None for any other text ("-1", "1.0", "²")."""
    return int(text) if text.isdecimal() and len(text) < 1000 else None  # Python converts at most 4,300 digits
