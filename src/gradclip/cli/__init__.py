"""The command ``gradclip``. Each subcommand has its own file here, and imports what is heavy only when it is called."""

from __future__ import annotations

from typing import Annotated

import typer

from gradclip.cli.lab import lab
from gradclip.cli.recipes import recipes
from gradclip.cli.report import report
from gradclip.cli.run import run

__all__ = ["app"]

app = typer.Typer(
    name="gradclip",
    help="Gradient clipping done right: clip anything, watch what it does, understand why.",
    no_args_is_help=True,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

for command in (recipes, lab, report):
    app.command()(command)
app.command(context_settings={"allow_interspersed_args": False})(run)


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
