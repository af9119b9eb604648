"""Start a script under watch: an ordinary interpreter on the ordinary command line, prepared before the script begins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ["Settings", "command", "environment"]

PYTHONPATH = Path(__file__).parent / "pythonpath"
"""It holds nothing but ``sitecustomize.py``: whatever lies there, a script could import."""


@dataclass(frozen=True)
class Settings:
    """What `gradclip run` was asked for."""

    script: str
    clip: str | None = None
    every: int = 1
    folder: str = "runs"
    """Where run files go."""
    report: bool = True
    status: bool = True
    cwd: str = field(default_factory=os.getcwd)
    """Where the script is started; it may go elsewhere."""

    def to_json(self) -> str:
        """Return what travels to the script's process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Read what has travelled."""
        return cls(**json.loads(text))


def command(arguments: Sequence[str]) -> list[str]:
    """Return the command line of a plain interpreter with this one's own options: ``python [options] train.py ...``."""
    return [sys.executable, *subprocess._args_from_interpreter_flags(), *arguments]  # type: ignore[attr-defined]


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment that makes the interpreter prepare itself (``pythonpath/sitecustomize.py``)."""
    before = os.environ.get("PYTHONPATH")
    paths = [str(PYTHONPATH), before] if before else [str(PYTHONPATH)]
    kept = {} if before is None else {"GRADCLIP_PYTHONPATH": before}
    return {**os.environ, **kept, "PYTHONPATH": os.pathsep.join(paths), "GRADCLIP_WATCH": settings.to_json()}
