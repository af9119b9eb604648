"""The page's tables, in the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from gradclip.report.page import Table as PageTable

__all__ = ["printed"]


def printed(table: PageTable) -> Group:
    """Lay out a table and its notes; a row's name keeps its line, and headings wrap before it does."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, name in enumerate(table.columns):
        drawn.add_column(name, justify="right" if i in table.numeric else "left", overflow="fold", no_wrap=i == 0)
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    return Group(drawn, *map(Text, table.notes))
