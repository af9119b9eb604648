"""A check's manual page: the docstring of its file."""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import dataclass
from typing import Final, Self

__all__ = ["SECTIONS", "Manual"]

SECTIONS: Final = ("Why it is bad", "How it is detected", "Wrong", "Right", "References")
"""Every page has these, in this order."""
CODE: Final = ("Wrong", "Right")


@dataclass(frozen=True)
class Manual:
    """What a fault is, why it is bad, how it is told, an example, its fix, and where to read more."""

    name: str
    what: str
    sections: dict[str, str]

    @classmethod
    def parse(cls, name: str, docstring: str) -> Self:
        r"""Read a page: a first line that says what the fault is, then ``Section:`` lines with indented text under them.

        >>> page = Manual.parse("x", "A fault.\n\nWrong:\n    step()\n    clip()\n")
        >>> page.what, page.sections["Wrong"]
        ('A fault.', 'step()\nclip()')
        """
        what, _, rest = inspect.cleandoc(docstring).partition("\n\n")
        parts = re.split(r"^(\S[^\n]*):\n", rest, flags=re.MULTILINE)
        sections = {title: textwrap.dedent(text).strip() for title, text in zip(parts[1::2], parts[2::2], strict=True)}
        return cls(name, " ".join(what.split()), sections)

    def __str__(self) -> str:
        """Return the page as plain text, for a terminal."""
        parts = [f"{title}:\n{_indented(text)}" for title, text in self.sections.items()]
        return "\n\n".join([f"{self.name}: {self.what}", *parts])

    def to_markdown(self) -> str:
        """Return the page for the documentation."""
        sections = [_section(title, text) for title, text in self.sections.items()]
        return "\n\n".join([f"### {self.name}", _prose(self.what), *sections])


def _section(title: str, text: str) -> str:
    if title in CODE:
        return f"**{title}**\n\n```python\n{text}\n```"
    return f"**{title}**\n\n{text}" if title == "References" else f"**{title}.** {_prose(text)}"


def _prose(text: str) -> str:
    return text.replace("``", "`")


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())
