"""Processes that a watched process starts: those of ``multiprocessing``, of ``os.fork`` and of torchrun are watched, too.

Their environment and their command lines are what they were. Others (``subprocess``) are left alone, and counted where
they run Python.
"""

from __future__ import annotations

import multiprocessing.process
import multiprocessing.spawn
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from gradclip.watch.observe.call_wrapper import Call, wrapper
from gradclip.watch.start.launch import PYTHONPATH, Settings, environment

__all__ = ["ChildProcesses"]

LAUNCHERS: Final = ("python", "torchrun", "accelerate", "deepspeed")
"""How the names of commands begin that may train."""

START: Final = """
try:
    exec(compile(open(__file__, encoding="utf-8").read(), __file__, "exec"))
except Exception as error:
    import sys
    print(f"gradclip: this process is not watched: {type(error).__name__}: {error}", file=sys.__stderr__)
"""


class ChildProcesses:
    """Have the processes that this one starts watched, until it ends.

    Args:
        settings: what was asked for.
        forked: is called first thing in a forked child, with its settings.
        ended: is called when the work of a process of ``multiprocessing`` is over, in it, with its exit code.
    """

    def __init__(self, settings: Settings, forked: Callable[[Settings], object], ended: Callable[[int], object]) -> None:
        self._settings, self._forked, self._ended = settings, forked, ended
        self.watched = 0
        """How many were started that are watched, if they train."""
        self.unseen = 0
        """How many were started that may train, and are not watched."""
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_parent=self._in_parent, after_in_child=self._in_child)
        _wrap(multiprocessing.spawn, "get_preparation_data", _nothing, self._prepared)
        _wrap(multiprocessing.process.BaseProcess, "_bootstrap", _nothing, lambda call: self._ended(int(call.result or 0)))
        _wrap(subprocess.Popen, "__init__", self._before_popen)

    def _child_settings(self, group: bool = False) -> Settings:
        rank = os.environ.get("RANK")
        return replace(self._settings, began=time.time(), child=True, inherited_rank=rank, inherited_group=group)

    def _in_parent(self) -> None:
        self.watched += 1

    def _in_child(self) -> None:
        distributed = sys.modules.get("torch.distributed")
        group = distributed is not None and distributed.is_available() and distributed.is_initialized()
        self._settings = self._child_settings(group)
        self.watched = self.unseen = 0
        self._forked(self._settings)

    def _prepared(self, call: Call) -> None:
        """What is unpickled first in a process that is spawned, or that a fork server forks, starts the watch there."""
        self.watched += 1
        if isinstance(call.result, dict):
            call.result["gradclip"] = _Start(self._child_settings())

    def _before_popen(self, call: Call) -> None:
        words, variables = call.argument(1, "args"), call.kwargs.get("env")
        command = words[0] if isinstance(words, (list, tuple)) and words else words
        if isinstance(variables, Mapping) and {"RANK", "TORCHELASTIC_RUN_ID"} <= variables.keys():
            self.watched += 1
            call.kwargs = {**call.kwargs, "env": environment(self._child_settings(), variables)}
        elif isinstance(command, (str, os.PathLike)) and os.path.basename(command).startswith(LAUNCHERS):
            self.unseen += 1


class _Start:
    """Unpickled, it starts the watch, as ``sitecustomize.py`` does in a process that `gradclip run` starts."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.to_json()

    def __reduce__(self) -> tuple[Any, ...]:
        file = str(Path(PYTHONPATH, "sitecustomize.py"))
        names = {"__name__": "sitecustomize", "__file__": file, "CHILD": self._settings}
        return exec, (START, names)


def _wrap(owner: Any, name: str, before: Callable[[Call], object], after: Callable[[Call], object] | None = None) -> None:
    setattr(owner, name, wrapper(vars(owner)[name], before, after))


def _nothing(call: Call) -> None:
    pass
