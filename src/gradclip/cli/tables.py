"""The page's tables and notices, in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from gradclip.cli.terminal import console
from gradclip.report.notice import Notice
from gradclip.report.table import Table as PageTable

__all__ = ["plain", "print_parts", "rich_group", "rich_table"]

STYLES = {"error": "bold red", "warning": "bold yellow"}


def rich_table(table: PageTable) -> Group:
    """Lay out a table and its notes; names and numbers keep their lines, and headings wrap before they do."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for i, name in enumerate(table.columns):
        numeric = i in table.numeric
        widest = max((len(row[i]) for row in table.rows), default=0) if numeric else None
        drawn.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=i == 0, min_width=widest)
    for row in table.rows:
        drawn.add_row(*(Text(plain(cell, "")) for cell in row))
    return Group(drawn, *(Text(plain(note)) for note in table.notes))


def print_parts(parts: Iterable[str | PageTable | Notice]) -> None:
    """Print sentences and tables, one after the other; names from outside are text, never markup or control codes."""
    console().print(rich_group(parts))


def rich_group(parts: Iterable[str | PageTable | Notice]) -> Group:
    """Lay out sentences, tables and notices, the first in bold."""
    shown: list[Text | Group] = []
    for place, part in enumerate(parts):
        if place:
            shown.append(Text())
        if isinstance(part, str):
            shown.append(Text(plain(part), style="" if place else "bold"))
        elif isinstance(part, Notice):
            shown.append(Text("\n").join(_noticed(part)))
        else:
            shown += [Text(plain(part.caption), style="dim"), rich_table(part)]
    return Group(*shown)


def _noticed(notice: Notice) -> Iterator[Text]:
    yield Text.assemble((plain(notice.title), STYLES.get(notice.level, "bold")), (f"  {plain(notice.about)}", "dim"))
    yield Text(plain(notice.sentence))
    yield from (Text(f"  {plain(fact)}", style="dim") for fact in notice.facts)
    yield from (Text(f"    {plain(line)}", style="green") for line in notice.code.splitlines())


def plain(words: str, kept: str = "\n") -> str:
    r"""Write control characters out, so that a name from outside cannot steer the terminal.

    >>> plain("w\x1b[2J")
    'w\\x1b[2J'
    """
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in words)
