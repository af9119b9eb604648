"""Start a script under watch: an ordinary interpreter on the ordinary command line, prepared before the script begins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
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
    launch: str = field(default_factory=lambda: uuid.uuid4().hex)
    """What all processes have in common that come from one `gradclip run`."""
    began: float = field(default_factory=time.time)
    """When the process was started, in seconds since the epoch."""
    child: bool = False
    """Whether a process that is watched has started this one."""
    inherited_rank: str | None = None
    """What ``RANK`` was in the environment of that process: not what the child is."""
    inherited_group: bool = False
    """Whether that process had a process group when it was forked."""

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


def environment(settings: Settings, variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment that makes an interpreter prepare itself (``pythonpath/sitecustomize.py``).

    Args:
        settings: what was asked for.
        variables: the environment that it would have otherwise.
    """
    before = variables.get("PYTHONPATH")
    paths = [str(PYTHONPATH), before] if before else [str(PYTHONPATH)]
    kept = {} if before is None else {"GRADCLIP_PYTHONPATH": before}
    return {**variables, **kept, "PYTHONPATH": os.pathsep.join(paths), "GRADCLIP_WATCH": settings.to_json()}
