"""Checks of the numbers that a rule is built from."""

from __future__ import annotations

from gradclip.thresholds import positive

__all__ = ["begins_within", "count", "share"]


def share(value: float, what: str, *, closed: bool = False) -> float:
    """Check a number between 0 and 1."""
    result = positive(value, what)
    if result > 1 or (result == 1 and not closed):
        raise ValueError(f"{what} must be between 0 and 1, not {result:g}")
    return result


def count(value: int, what: str, least: int = 1) -> int:
    """Check a whole number."""
    if isinstance(value, bool) or value != int(value) or value < least:
        raise ValueError(f"{what} is a whole number >= {least}, not {value}")
    return int(value)


def begins_within(after: int, window: int) -> None:
    """Refuse a rule that begins after more norms than its window holds."""
    if after > window:
        raise ValueError(f"the rule cannot begin after {after} norms: its window holds {window}")
