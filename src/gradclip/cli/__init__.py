"""The command ``gradclip``. Each subcommand has its own file here, and imports what is heavy only when it is called."""

from __future__ import annotations

from typing import Annotated

import typer

from gradclip.cli.check import check
from gradclip.cli.compare import compare
from gradclip.cli.explain import explain
from gradclip.cli.export import export
from gradclip.cli.findings import findings
from gradclip.cli.lab import lab
from gradclip.cli.list_runs import list_
from gradclip.cli.recipes import recipes
from gradclip.cli.replay import replay
from gradclip.cli.report import report
from gradclip.cli.run import RunCommand, run
from gradclip.cli.suggest import suggest
from gradclip.cli.top import top

__all__ = ["app"]

app = typer.Typer(
    name="gradclip",
    help="Gradient clipping done right: clip anything, watch what it does, understand why.",
    no_args_is_help=True,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

for command in (recipes, lab, check, findings, explain, report, suggest, replay, compare, top, export):
    app.command()(command)
app.command("list")(list_)
app.command(cls=RunCommand, context_settings={"allow_interspersed_args": False})(run)


def _version(asked: bool) -> None:
    if asked:
        from gradclip import __version__

        typer.echo(f"gradclip {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Gradient clipping done right: clip anything, watch what it does, understand why."""
