"""Progress of several arms: live bars in a terminal, a line at the start and end of each arm elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gradclip.labs.runner import Tick

__all__ = ["progress"]


@contextmanager
def progress(out: Console, arms: Sequence[str], steps: int) -> Iterator[Callable[[Tick], None]]:
    """Show how far each arm is; gives the function to call with every tick."""
    if not out.is_terminal:
        yield _lines(out, arms)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(),
        TextColumn("{task.fields[now]}"), TimeRemainingColumn(compact=True),
    )  # fmt: skip
    with Progress(*columns, console=out) as bars:
        tasks = [bars.add_task(escape(arm), total=steps, start=False, now="") for arm in arms]

        def show(tick: Tick) -> None:
            bars.start_task(tasks[tick.arm])
            now = f"loss {tick.loss:.3g}  norm {tick.norm:.3g}"
            bars.update(tasks[tick.arm], completed=tick.step, now=now, total=tick.step if tick.done else None)

        yield show


def _lines(out: Console, arms: Sequence[str]) -> Callable[[Tick], None]:
    def show(tick: Tick) -> None:
        if tick.done:
            out.print(f"{arms[tick.arm]}: {tick.step} steps, loss {tick.loss:.3g}", soft_wrap=True, markup=False)

    return show
