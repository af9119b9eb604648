"""``gradclip findings``: everything that a check can find."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["findings", "markdown"]

Markdown = Annotated[bool, typer.Option("--markdown", help="Print every page as Markdown.")]


def findings(as_markdown: Markdown = False) -> None:
    """List what can be found wrong with a run; gradclip explain NAME prints the manual page of one."""
    if as_markdown:
        typer.echo(markdown())
    else:
        _list()


def _list() -> None:
    from gradclip.cli.tables import print_parts
    from gradclip.diagnosis.registry import CHECKS
    from gradclip.report.table import Table

    rows = [(check.name, check.family.replace("_", " "), check.manual.what) for check in CHECKS.values()]
    table = Table("gradclip explain NAME explains one", ("finding", "family", "what it is"), rows)
    print_parts(["What gradclip check can find", table])


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
