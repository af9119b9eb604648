"""Progress of several arms: one bar and the arms under way in a terminal, a line at the end of each arm elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from gradclip.cli.tables import plain
from gradclip.labs.runner import Tick

__all__ = ["progress"]

MOST_NAMES = 4
"""Arms under way that are named one by one."""


@contextmanager
def progress(out: Console, arms: Sequence[str], steps: int) -> Iterator[Callable[[Tick], None]]:
    """Show how far the arms are; gives the function to call with every tick."""
    if not out.is_interactive:
        yield _lines(out, arms)
        return
    together = _Together(arms, steps)
    with Live(together, console=out):
        yield together.add


class _Together:
    """One bar for all arms, and below it those under way."""

    def __init__(self, arms: Sequence[str], steps: int) -> None:
        self._arms, self._steps = arms, steps
        self._last: dict[int, Tick] = {}
        done = TextColumn(f"{{task.fields[done]}} of {len(arms)} arms")
        self._bar = Progress(BarColumn(bar_width=40), done, TimeRemainingColumn(compact=True, elapsed_when_finished=True))
        self._task = self._bar.add_task("", total=len(arms) * steps, done=0)

    def add(self, tick: Tick) -> None:
        """Take in how far an arm is; one that has stopped before its last step has none left."""
        self._last[tick.arm] = tick
        last = self._last.values()
        steps = sum(self._steps if tick.done else tick.step for tick in last)
        self._bar.update(self._task, completed=steps, done=sum(tick.done for tick in last))

    def __rich__(self) -> Group:
        under_way = [tick for _, tick in sorted(self._last.copy().items()) if not tick.done]
        shown = [self._bar, self._named(under_way[:MOST_NAMES])] if under_way else [self._bar]
        more = len(under_way) - MOST_NAMES
        return Group(*shown, *([Text(f"and {more} more", style="dim")] if more > 0 else []))

    def _named(self, ticks: Sequence[Tick]) -> Table:
        """A line for each arm; where it is too long its name is cut."""
        named = Table.grid(padding=(0, 2, 0, 0))
        named.add_column(overflow="ellipsis")
        for _ in range(3):
            named.add_column(no_wrap=True)
        for tick in ticks:
            name = Text(plain(self._arms[tick.arm], ""), no_wrap=True, overflow="ellipsis")
            named.add_row(name, f"{tick.step}/{self._steps}", f"loss {tick.loss:.3g}", f"norm {tick.norm:.3g}")
        return named


def _lines(out: Console, arms: Sequence[str]) -> Callable[[Tick], None]:
    def show(tick: Tick) -> None:
        if tick.done:
            out.print(f"{arms[tick.arm]}: {tick.step} steps, loss {tick.loss:.3g}", soft_wrap=True, markup=False)

    return show
