"""``gradclip run``: a training script, unedited, watched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Annotated

import typer
from typer.core import TyperCommand

from gradclip.cli.recipes import parsed_clip
from gradclip.cli.terminal import fail

__all__ = ["RunCommand", "run"]


Words = Annotated[
    list[str] | None,
    typer.Argument(help="The script and its own arguments.", metavar="SCRIPT [ARGS]...", show_default=False),
]
Module = Annotated[str | None, typer.Option("--module", "-m", help="Run a module instead, as python -m does.")]
Clip = Annotated[str | None, typer.Option(metavar="RECIPE", help="Clip too, in place of the script's own clipping.")]
Every = Annotated[int, typer.Option(metavar="N", min=1, help="Keep the norms of single tensors at every N-th step.")]
Out = Annotated[str, typer.Option(metavar="FOLDER", help="Where run files go.")]
Report = Annotated[bool, typer.Option(help="Write the HTML page at the end.")]
Status = Annotated[bool, typer.Option(help="Show a status line on a terminal.")]


def run(
    arguments: Words = None,
    module: Module = None,
    clip: Clip = None,
    every: Every = 1,
    out: Out = "runs",
    report: Report = True,
    status: Status = True,
) -> None:
    """Run a training script as Python would, and record what its gradients do."""
    from gradclip.watch.start.launch import Settings, command, environment

    if clip is not None:
        clip = parsed_clip(clip)
    words = ["-m", module, *(arguments or [])] if module else list(arguments or [])
    if not words:
        fail("name a script: gradclip run train.py")
    if not module and words[0].endswith(".ipynb"):
        fail(
            f"{words[0]} is a notebook, which runs in a process of its own: call gradclip.record() in a cell, "
            f"or make a script of it: jupyter nbconvert --to script {words[0]}"
        )
    if sys.flags.ignore_environment or sys.flags.no_site:
        fail("python -E, -I and -S leave nothing for gradclip to start with: run it without them")
    settings = Settings(module or words[0], clip, every, os.path.abspath(out), report, status)
    _become(command(words), environment(settings))


def _become(words: list[str], environment: dict[str, str]) -> None:
    """Replace this process, so that signals, exit code and terminal are the script's own."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it is where it was closed before
            stream.flush()
    if os.name == "posix":
        os.execve(words[0], words, environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Windows cannot: stand behind it, and let it handle Ctrl-C
    sys.exit(subprocess.run(words, env=environment, check=False).returncode)


class RunCommand(TyperCommand):
    """Stops reading options where Python would: behind a script, and behind ``-m module``."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Put ``--`` in front of the script's own words."""
        return super().parse_args(ctx, _separated(args))


def _separated(args: list[str]) -> list[str]:
    """Return the words with the module's own behind ``--``.

    >>> _separated(["--every", "2", "-m", "package", "--lr", "1"])
    ['--every', '2', '-m', 'package', '--', '--lr', '1']
    >>> _separated(["--every", "2", "train.py", "-m", "x"])
    ['--every', '2', 'train.py', '-m', 'x']
    """
    before = ""
    for i, word in enumerate(args):
        if before in ("-m", "--module") or (word.startswith(("--module=", "-m")) and len(word) > 2):
            return [*args[: i + 1], "--", *args[i + 1 :]]
        if not word.startswith("-") and before not in ("--clip", "--every", "--out"):
            break
        before = word
    return args
