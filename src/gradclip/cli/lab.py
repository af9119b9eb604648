"""``gradclip lab``: experiments to watch clipping at work."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradclip.cli.terminal import console, fail, writable, write_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradclip.labs import Curves, Lab

__all__ = ["lab"]

Name = Annotated[str | None, typer.Argument(help="Which lab; --list shows them.", show_default=False)]
Steps = Annotated[int | None, typer.Option(help="Updates per arm.", show_default="the lab's own")]
Clip = Annotated[
    str | None,
    typer.Option(help="Clip with this recipe, e.g. agc:0.01, in every arm that clips.", show_default="the lab's own"),
]
Lr = Annotated[float | None, typer.Option(help="Learning rate of every arm.", show_default="the lab's own")]
Seed = Annotated[int, typer.Option(help="Of weights and batches; the same seed gives the same numbers.")]
Out = Annotated[
    Path | None,
    typer.Option(help="The HTML page; the run file of each arm is written beside it.", show_default="runs/lab-NAME.html"),
]
Jobs = Annotated[int | None, typer.Option(help="Arms that run side by side.", show_default="one a core")]
List = Annotated[bool, typer.Option("--list", help="List the labs and exit.")]


def lab(
    name: Name = None,
    steps: Steps = None,
    clip: Clip = None,
    lr: Lr = None,
    seed: Seed = 0,
    out: Out = None,
    jobs: Jobs = None,
    list_: List = False,
) -> None:
    """Train small models with and without clipping, and write a page about what happened."""
    from gradclip.labs import LABS

    if list_:
        widest = max(map(len, LABS))
        for each, about in LABS.items():
            console().print(f"[bold]{each:{widest}}[/]  {about}", soft_wrap=True)
        return
    if name not in LABS:
        fail(f"{'name a lab' if name is None else f'unknown lab {name!r}'}: there are {', '.join(LABS)}")
    _check(steps, lr, seed, jobs)
    experiment = _load(name)
    page = writable(out or Path("runs") / f"lab-{name}.html")
    runs = _run(experiment, steps or experiment.steps, clip, lr, seed, jobs, page.parent)
    _show(experiment, runs, page, seed, _command(name, steps=steps, clip=clip, lr=lr, seed=seed))


def _check(steps: int | None, lr: float | None, seed: int, jobs: int | None) -> None:
    for option, number in (("--steps", steps), ("--jobs", jobs)):
        if number is not None and number < 1:
            fail(f"{option} is a number of at least 1, not {number}")
    if lr is not None and not (math.isfinite(lr) and lr > 0):
        fail(f"--lr is a learning rate above 0, for example 0.1, not {lr:g}")
    if not 0 <= seed < 2**63:
        fail(f"--seed is a whole number from 0 to 2**63 - 1, not {seed}")


def _load(name: str) -> Lab:
    from gradclip.labs import load

    try:
        return load(name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        fail("the labs train with PyTorch, which is not installed: pip install 'gradclip[torch]'")


def _run(
    experiment: Lab, steps: int, clip: str | None, lr: float | None, seed: int, jobs: int | None, folder: Path
) -> list[Curves]:
    from gradclip.cli.progress import progress
    from gradclip.errors import GradclipError
    from gradclip.labs.runner import run_arms

    try:
        arms = experiment.arms_with(clip=clip, lr=lr)
        with progress(console(), [arm.name for arm in arms], steps) as report:
            return run_arms(experiment, arms, steps=steps, seed=seed, jobs=jobs, report=report, out=folder)
    except (GradclipError, ValueError) as error:
        fail(f"--clip: {error}" if clip else str(error))
    except KeyboardInterrupt:
        fail("interrupted: no page was written", code=130)


def _show(experiment: Lab, runs: Sequence[Curves], path: Path, seed: int, command: str) -> None:
    from rich.text import Text

    from gradclip.cli.tables import rich_table
    from gradclip.labs.page import page, summary

    out = console()
    laid_out = page(experiment, runs, command=command, seed=seed)
    out.print()
    out.print(rich_table(summary(experiment, runs)))
    out.print(Text(f"\n{laid_out.verdict}", style="bold"))
    write_page(laid_out, path)


def _command(name: str, **options: object) -> str:
    given = [f"--{option} {shlex.quote(str(value))}" for option, value in options.items() if value is not None]
    return " ".join(["gradclip lab", name, *given])
