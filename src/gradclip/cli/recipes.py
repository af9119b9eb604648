"""``gradclip recipes``: the named methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gradclip.cli.terminal import console, fail

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gradclip.recipes import Recipe

__all__ = ["markdown", "recipes", "parsed_clip"]

_WIDE = 130


Markdown = Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")]


def recipes(as_markdown: Markdown = False) -> None:
    """List the clipping methods that have a name, with their formulas, arguments and sources."""
    if as_markdown:
        typer.echo(markdown())
        return
    from rich import box
    from rich.table import Table

    from gradclip.recipes import RECIPES

    out = console()
    wide = out.width >= _WIDE
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0), leading=not wide)
    table.add_column("recipe", no_wrap=True)
    for heading in ("arguments", "formula", "what it does", "source") if wide else ("what it does",):
        table.add_column(heading, overflow="fold")
    for recipe in RECIPES.values():
        table.add_row(f"[bold]{recipe.name}[/]", *(_cells(recipe) if wide else (_stacked(recipe),)))
    out.print(table)
    out.print(
        "\nSpell a recipe as name:argument,key=value, for example global_norm:1.0 or agc:0.02,exclude=head.*", soft_wrap=True
    )


def markdown() -> str:
    """Return the same as a Markdown table, as it stands in the README."""
    from gradclip.recipes import RECIPES

    rows = [
        f"| `{r.name}` | {r.summary.replace('``', '`')} | {r.formula.replace('|', '&#124;')} | `{r.defaults}` | {r.source} |"
        for r in RECIPES.values()
    ]
    return "\n".join(["| recipe | what it does | formula | arguments | source |", "| --- | --- | --- | --- | --- |", *rows])


def _cells(recipe: Recipe) -> tuple[RenderableType, ...]:
    from rich.text import Text

    return Text(recipe.defaults), Text(recipe.formula), Text(recipe.summary.replace("``", "")), Text(recipe.source, style="dim")


def _stacked(recipe: Recipe) -> RenderableType:
    """What a wide terminal shows side by side, one under the other."""
    from rich.console import Group

    arguments, formula, summary, source = _cells(recipe)
    return Group(summary, formula, arguments, source)


def parsed_clip(clip: str) -> str:
    """Read a ``--clip`` before anything runs; one that is none is refused in a sentence."""
    from gradclip import parse

    try:
        return str(parse(clip))
    except ValueError as error:
        fail(f"--clip: {error}")
