"""Checks of the numbers that methods are built from; each error says what should have been written."""

from __future__ import annotations

import math

__all__ = ["begins_within", "number", "positive", "set_fields", "share", "whole"]


def number(value: object, what: str) -> float:
    """Return ``value`` as a float that is not NaN; read NumPy scalars and 0-dim arrays, refuse words and booleans."""
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"{what} must be a number, not {type(value).__name__} ({value!r})")
    result = float(value)
    if math.isnan(result):
        raise ValueError(f"{what} must be a number, not NaN")
    return result


def positive(value: object, what: str) -> float:
    """Return ``value`` as a float > 0 (``inf`` included)."""
    result = number(value, what)
    if not result > 0:
        raise ValueError(f"{what} must be > 0, not {result:g}: write a positive number, or inf to measure without clipping")
    return result


def share(value: object, what: str, *, zero: bool = False, one: bool = False) -> float:
    """Return ``value`` as a float between 0 and 1; ``zero`` and ``one`` say which ends may be written.

    >>> share(1, "the quantile", one=True)
    1.0
    """
    result = number(value, what)
    if not 0 <= result <= 1 or (result == 0 and not zero) or (result == 1 and not one):
        raise ValueError(f"{what} must be between 0 and 1, in {'(['[zero]}0, 1{')]'[one]}, not {result:g}")
    return result


def whole(value: int, what: str, least: int = 1) -> int:
    """Return a whole number of steps."""
    if isinstance(value, (bool, str)) or not float(value).is_integer() or value < least:
        raise ValueError(f"{what} is a whole number of steps >= {least}, not {value}")
    return int(value)


def begins_within(after: int, window: int) -> None:
    """Refuse a rule that begins after more norms than its window holds."""
    if after > window:
        raise ValueError(f"the rule cannot begin after {after} norms: its window holds {window}")


def set_fields(made: object, **values: object) -> None:
    """Set fields of a frozen dataclass while it is being made."""
    for name, value in values.items():
        object.__setattr__(made, name, value)
