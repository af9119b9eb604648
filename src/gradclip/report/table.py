"""A table of plain text: on a page, beside a chart, or in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Table"]


@dataclass(frozen=True)
class Table:
    """A table of plain text; the first cell of each row is its header."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()
    """The columns that hold numbers, which are aligned to the right."""
    notes: Sequence[str] = ()
    """Sentences under the table."""
