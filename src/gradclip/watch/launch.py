"""Start a script under watch: an ordinary interpreter on the ordinary command line, prepared before the script begins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

__all__ = ["Settings", "begin", "command", "environment"]

STARTUP = Path(__file__).parent / "startup"
VARIABLE = "GRADCLIP_WATCH"


@dataclass(frozen=True)
class Settings:
    """What `gradclip run` was asked for."""

    script: str
    clip: str | None = None
    every: int = 1
    folder: str = "runs"
    report: bool = True
    status: bool = True


def command(arguments: Sequence[str]) -> list[str]:
    """Return the command line of a plain interpreter with this one's own options: ``python [options] train.py ...``."""
    return [sys.executable, *subprocess._args_from_interpreter_flags(), *arguments]  # type: ignore[attr-defined]


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment that makes the interpreter prepare itself."""
    before = os.environ.get("PYTHONPATH")
    paths = [str(STARTUP), before] if before else [str(STARTUP)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), VARIABLE: json.dumps(asdict(settings))}


def begin(settings: str) -> None:
    """Called before the script: watch from the moment it has imported PyTorch, and say something at the end in any case."""
    # Loaded late and in this order: a script that never imports PyTorch pays for none of it.
    from gradclip.watch.goodbye import Goodbye

    chosen = Settings(**json.loads(settings))
    goodbye = Goodbye(chosen)
    sys.meta_path.insert(0, _AfterTorch(goodbye))


class _AfterTorch(MetaPathFinder):
    """Let PyTorch be imported as ever, then start the watch once."""

    def __init__(self, goodbye: object) -> None:
        self._goodbye = goodbye

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = find_spec("torch")
        if spec is not None and spec.loader is not None:
            spec.loader = _Following(spec.loader, self._goodbye)
        return spec


class _Following(Loader):
    """Load a module with its own loader, then start the watch."""

    def __init__(self, loader: Loader, goodbye: object) -> None:
        self._loader, self._goodbye = loader, goodbye

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        from gradclip.watch.goodbye import Goodbye

        assert isinstance(self._goodbye, Goodbye)
        self._goodbye.watch()

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)
