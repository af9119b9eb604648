"""Which files of the package are entered, in which order: for a gradient that is clipped, and for a script that is watched."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

import gradclip
from benchmarks.shape_calls import two_layers
from benchmarks.shape_entries import Entries, Entry

__all__ = ["PACKAGE", "TRACES", "child_environment", "clip_entries", "file_steps", "folder_steps", "watch_entries"]

PACKAGE = Path(gradclip.__file__).parent
HERE = Path(__file__).parent
SHOWN = 12
"""So many names a step has; the rest is counted."""

SCRIPT = """
import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(20):
    optimizer.zero_grad()
    model(torch.randn(16, 4)).square().mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
"""
FOLLOW = """
import sys

sys.path.insert(0, {here!r})
import shape_entries

sys.path.remove({here!r})
shape_entries.write_to({log!r}, {package!r})
"""


def clip_entries() -> list[Entry]:
    """Clip once by ``clip_(model, "global_norm:1.0")`` and return what was entered; the first call in a process says most."""
    entries: list[Entry] = []
    model = two_layers()
    sys.setprofile(Entries(str(PACKAGE), entries.append))
    try:
        gradclip.clip_(model, "global_norm:1.0")
    finally:
        sys.setprofile(None)
    return entries


def watch_entries() -> list[Entry]:
    """Run a short script under ``gradclip run`` and return what was entered by the main thread of each process in turn.

    What only other threads enter comes after it; their turns differ from run to run.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "entries"
        environment = child_environment(folder, FOLLOW.format(here=str(HERE), log=str(log), package=str(PACKAGE)))
        (folder / "train.py").write_text(SCRIPT)
        _gradclip(["run", "train.py"], folder, environment)
        if not list(folder.rglob("*.html")):
            _gradclip(["report"], folder, environment)
        noted = [json.loads(line) for line in log.read_text().splitlines()]
    processes = list(dict.fromkeys(process for process, *_ in noted))
    noted.sort(key=lambda entry: (processes.index(entry[0]), not entry[1]))
    return [(file, function) for _, _, file, function in noted]


def child_environment(folder: Path, first: str) -> dict[str, str]:
    """Return an environment in which every Python runs some code before anything else, and finds this gradclip."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(first)
    paths = [str(site), str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def file_steps(entries: Iterable[Entry]) -> list[str]:
    """Make a step of each file: the functions by which it is entered, and what the first of them does, where it says so."""
    functions: dict[str, dict[str, None]] = {}
    for file, function in entries:
        if name := _shown(function):
            functions.setdefault(file, {}).setdefault(name)
    return [
        f"`{file}`: {_listed(list(names))}{_dash(next(filter(None, (_docstring(file, name) for name in names)), ''))}"
        for file, names in functions.items()
    ]


def folder_steps(entries: Iterable[Entry]) -> list[str]:
    """Make a step of the files of one folder that are entered after each other for the first time.

    A single file of another folder in between is named within the step.
    """
    files = list(dict.fromkeys(file for file, _ in entries if "/" in file))
    rooms = [file.split("/")[0] for file in files]
    for i in range(1, len(rooms) - 1):
        if rooms[i - 1] == rooms[i + 1]:
            rooms[i] = rooms[i - 1]
    seen: set[str] = set()
    steps = []
    for room, of_room in groupby(zip(rooms, files, strict=True), key=lambda pair: pair[0]):
        about = "" if room in seen else _docstring(f"{room}/__init__.py", "")
        seen.add(room)
        steps.append(f"`{room}/`: {_listed([file.removeprefix(room + '/') for _, file in of_room])}{_dash(about)}")
    return steps


TRACES = {"clip": (clip_entries, file_steps), "watch": (watch_entries, folder_steps)}
"""What is followed, and how it is told."""


def _gradclip(words: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "gradclip", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")


def _shown(function: str) -> str:
    """A function's name as it is told: the class for its constructor, and nothing for what only Python calls."""
    name = re.sub(r"\.__(init|post_init|new)__$", "", function.partition(".<locals>")[0])
    return "" if name.startswith("<") or name.endswith("__") else name


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    listed = ", ".join(f"`{name}`" for name in (names if more <= 1 else names[:SHOWN]))
    return listed if more <= 1 else f"{listed} and {more} more"


def _dash(sentence: str) -> str:
    return f" — {sentence}" if sentence else ""


@cache
def _documented(file: str) -> dict[str, str]:
    """The first lines of the docstrings in a file, by qualified name; the file's own is that of ''."""
    found: dict[str, str] = {}

    def visit(node: ast.Module | ast.ClassDef | ast.FunctionDef, name: str) -> None:
        found[name] = (ast.get_docstring(node) or "").partition("\n")[0]
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                visit(child, f"{name}.{child.name}".lstrip("."))

    visit(ast.parse((PACKAGE / file).read_text()), "")
    return found


def _docstring(file: str, name: str) -> str:
    return _documented(file).get(name, "") if (PACKAGE / file).exists() else ""
