"""``gradclip top``: a run, live, from another terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from gradclip.cli.run_files import RunPath, opened

if TYPE_CHECKING:
    from gradclip.report.live import Follower
    from gradclip.report.table import Table
    from gradclip.runs import Run

__all__ = ["top"]

Once = Annotated[bool, typer.Option("--once", help="Show the present state and exit.")]
Interval = Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")]


def top(run: RunPath = None, once: Once = False, interval: Interval = 0.5) -> None:
    """Watch a run while it is written: step, loss, norm, clip rate, and the layers with the largest norms."""
    from gradclip.cli.tables import print_parts
    from gradclip.cli.terminal import console

    with opened(run) as found:
        followers: dict[int, Follower] = {}
        if once or not console().is_terminal:
            print_parts(_screen(found, followers))
        else:
            _follow(found, followers, interval)


def _follow(run: Run, followers: dict[int, Follower], interval: float) -> None:
    """Show the run until it ends or the user leaves."""
    import contextlib

    from rich.live import Live

    from gradclip.cli.tables import rich_group
    from gradclip.cli.terminal import console

    with contextlib.suppress(KeyboardInterrupt), Live(console=console(), auto_refresh=False) as live:
        while True:
            status = run.status
            live.update(rich_group(_screen(run, followers)), refresh=True)
            if status != "running":
                return
            time.sleep(interval)


def _screen(run: Run, followers: dict[int, Follower]) -> list[str | Table]:
    from gradclip.report.live import Follower, frame

    title, status = str(run.meta.get("title") or run.path.stem), run.status
    parts: list[str | Table] = []
    for number in run.optimizers or (0,):
        follower = followers.setdefault(number, Follower(run, number))
        follower.read_new()
        parts += frame(follower, status, f"{title}, optimizer {number}" if len(run.optimizers) > 1 else title)
    return parts
