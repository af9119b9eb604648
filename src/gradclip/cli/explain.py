"""``gradclip explain``: the manual page of one finding."""

from __future__ import annotations

from typing import Annotated

import typer

from gradclip.cli.terminal import fail

__all__ = ["explain"]

Name = Annotated[str, typer.Argument(help="A finding; gradclip findings lists them.", metavar="NAME", show_default=False)]


def explain(name: Name) -> None:
    """Explain one finding: why it is bad, how it is detected, wrong and right code, where to read more."""
    from difflib import get_close_matches

    from gradclip.diagnosis.registry import CHECKS

    if name not in CHECKS:
        near = get_close_matches(name, CHECKS, n=1)
        fail(f"no finding is called {name!r}; {f'did you mean {near[0]}? ' if near else ''}gradclip findings lists them all")
    typer.echo(str(CHECKS[name].manual))
