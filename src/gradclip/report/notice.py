"""What a reader must know before all else, laid out apart from the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Notice"]


@dataclass(frozen=True)
class Notice:
    """A box of plain text on a page, a paragraph in a terminal."""

    title: str
    level: str
    """``error``, ``warning`` or ``note``."""
    about: str
    """What kind of thing it is, in a few words."""
    sentence: str
    facts: Sequence[str] = ()
    code: str = ""
