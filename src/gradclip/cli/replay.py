"""``gradclip replay``: the same script again with another clipping, beside one that is left as it was."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradclip.cli.recipes import parsed_clip
from gradclip.cli.run_files import RunPath, opened
from gradclip.cli.terminal import console, fail

if TYPE_CHECKING:
    from gradclip.runs import Run

__all__ = ["replay"]

Clip = Annotated[str, typer.Option(metavar="RECIPE", help="What to clip with.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before the recorded command is run.")]
Out = Annotated[Path | None, typer.Option(help="A folder for the new runs.", show_default="beside the run")]


def replay(run: RunPath = None, clip: Clip = "auto", out: Out = None, yes: Yes = False) -> None:
    """Run a recorded script again, once unchanged and once with another clipping, and say whether that helps."""
    from gradclip.watch.start.rerun import RerunError, command_of, refuse_foreign, rerun

    recipe = parsed_clip(clip)
    with opened(run) as found:
        folder, meta = _folder(found, out), found.meta
        try:
            command = command_of(meta)
            refuse_foreign(found.path)
            _announce(found.path, meta, command, folder)
            if not yes:
                _ask()
            control = rerun(meta, folder / "unchanged", meta.get("clip"))
            changed = rerun(meta, folder / "changed", recipe)
        except RerunError as error:
            fail(str(error))
        _print_comparison(found, control, changed, recipe)


def _folder(run: Run, out: Path | None) -> Path:
    """A folder that is not there yet, so that no run of before is taken for a new one."""
    wanted = out or run.path.with_suffix(".replay")
    numbered = (wanted.with_name(f"{wanted.name}-{number}") for number in range(2, 10_000))
    return next(folder for folder in chain([wanted], numbered) if not folder.exists())


def _announce(run: Path, meta: Mapping[str, Any], command: list[str], folder: Path) -> None:
    """Show what is about to run, and where that was read; control characters are written out, lest they hide a part of it."""
    from gradclip.cli.tables import plain
    from gradclip.diagnosis.formatting import local_time

    lines = [
        f"{run}, your own file, recorded {local_time(meta.get('created')) or 'at an unknown time'}, holds this command:",
        f"    {shlex.join(command)}",
        f"It runs twice, in {meta['cwd']}, which may take twice as long as before. Runs go to {folder}",
    ]
    console().print("\n".join(plain(line, "") for line in lines), soft_wrap=True, markup=False)


def _ask() -> None:
    """Go on if the user says so.

    A command in a file is not yet one that the user has typed: the latest run of a folder may be anybody's.
    """
    if not sys.stdin.isatty():
        fail("nothing was run: replay runs the command above, and nobody can be asked here; add --yes if it is right")
    if not typer.confirm("Run it?"):
        fail("nothing was run", code=1)


def _print_comparison(recorded: Run, control: Path, changed: Path, recipe: str) -> None:
    from gradclip.cli.tables import print_parts
    from gradclip.diagnosis.advice.replay_comparison import compare_replays
    from gradclip.diagnosis.ranking import check
    from gradclip.diagnosis.readings.run_data import read_run
    from gradclip.report.comparison import compare_table, compared
    from gradclip.runs import Run

    with ExitStack() as stack:
        runs = [recorded, *(stack.enter_context(Run.open(path)) for path in (control, changed))]
        proof = compare_replays(recipe, *(run.steps(0) for run in runs))
        names = ("recorded before", "again, unchanged", f"again, {recipe}")
        rows = [replace(one, name=name, clip="") for name, run in zip(names, runs, strict=True) for one in compared([run])]
        before, after = ({finding.name for finding in check(read_run(run))} for run in runs[1:])
    changes = [f"Gone with it: {', '.join(sorted(before - after))}."] if before - after else []
    changes += [f"New with it: {', '.join(sorted(after - before))}."] if after - before else []
    print_parts([proof.sentence, "\n".join([*proof.notes, *changes]), compare_table(rows)])
