"""``gradclip findings``: the manual of everything that a check can find."""

from __future__ import annotations

from typing import Annotated

import typer

from gradclip.cli.terminal import fail

__all__ = ["findings", "markdown"]

Name = Annotated[str | None, typer.Argument(help="A finding: its manual page.", metavar="NAME", show_default="list them all")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print every page as Markdown.")]


def findings(name: Name = None, as_markdown: Markdown = False) -> None:
    """List what can be found wrong with a run, or explain one finding: why it is bad, how it is told, the fix."""
    if as_markdown:
        typer.echo(markdown())
    elif name is None:
        _list()
    else:
        typer.echo(str(_page(name)))


def _page(name: str) -> object:
    from difflib import get_close_matches

    from gradclip.diagnosis.registry import CHECKS

    if name not in CHECKS:
        near = get_close_matches(name, CHECKS, n=1)
        fail(f"no finding is called {name!r}; {f'did you mean {near[0]}? ' if near else ''}gradclip findings lists them all")
    return CHECKS[name].manual


def _list() -> None:
    from gradclip.cli.tables import told
    from gradclip.diagnosis.registry import CHECKS
    from gradclip.report.table import Table

    rows = [(check.name, check.family.replace("_", " "), check.manual.what) for check in CHECKS.values()]
    table = Table("gradclip findings NAME explains one", ("finding", "family", "what it is"), rows)
    told(["What gradclip check can find", table])


def markdown() -> str:
    """Return every manual page, family by family."""
    from importlib import import_module

    from gradclip.diagnosis.registry import CHECKS, FAMILIES

    parts = []
    for family in FAMILIES:
        about = (import_module(f"gradclip.diagnosis.findings.{family}").__doc__ or "").strip()
        pages = [check.manual.to_markdown() for check in CHECKS.values() if check.family == family]
        parts += [f"## {family.replace('_', ' ').capitalize()}", about, *pages]
    return "\n\n".join(parts)
