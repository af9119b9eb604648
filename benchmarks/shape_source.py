"""What can be counted in a source tree without running it: lines, import cycles, class tests, questions about the backend."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

__all__ = ["BACKEND_QUESTIONS", "Source", "backend_questions", "class_tests", "import_cycles", "lines", "subclasses"]

BACKEND_QUESTIONS = ("describe(", ".left_out", "is_compiling()", ".device.type, .is_cuda")
"""How the code finds out by which backend a gradient is handled."""


@dataclass(frozen=True)
class Source:
    """The Python files of a package.

    Args:
        root: the folder of the package; its name is the package's name.
    """

    root: Path

    @cached_property
    def trees(self) -> Mapping[str, ast.Module]:
        """The syntax trees by path, as in ``torch/plan.py``."""
        files = sorted(self.root.rglob("*.py"))
        return {file.relative_to(self.root).as_posix(): ast.parse(file.read_text(), str(file)) for file in files}

    def below(self, *folders: str) -> Mapping[str, ast.Module]:
        """Those in some folders of the package."""
        return {path: tree for path, tree in self.trees.items() if path.split("/")[0] in folders}

    def module(self, path: str) -> str:
        """The name under which a file is imported."""
        parts = [self.root.name, *path.removesuffix(".py").split("/")]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def lines(source: Source) -> int:
    """Count lines, as ``wc -l`` does."""
    return sum((source.root / path).read_text().count("\n") for path in source.trees)


def subclasses(source: Source, bases: Sequence[str]) -> set[str]:
    """Return the names of these classes and of all that inherit from them, anywhere in the package."""
    classes = [node for tree in source.trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    found, before = set(bases), 0
    while len(found) > before:
        before = len(found)
        found |= {node.name for node in classes if any(_name(base) in found for base in node.bases)}
    return found


def class_tests(trees: Mapping[str, ast.Module], classes: set[str]) -> dict[str, int]:
    """Count the tests for one of these classes, by file: ``isinstance``, ``issubclass``, ``type(x) is C`` and ``case C():``."""
    return _counted(trees, lambda node: bool(classes & set(_tested(node))))


def backend_questions(trees: Mapping[str, ast.Module], chooser: str | None) -> dict[str, dict[str, int]]:
    """Count the questions of :data:`BACKEND_QUESTIONS`, by question and file, outside the one file that may ask them.

    A definition is no question, nor is a call of the compiled kernel's own function of that name.
    """
    asked = {path: tree for path, tree in trees.items() if path != chooser}
    return {
        "describe(": _counted(asked, lambda node: _called(node) == "describe" and not _of_extension(node)),
        ".left_out": _counted(asked, lambda node: isinstance(node, ast.Attribute) and node.attr == "left_out"),
        "is_compiling()": _counted(asked, lambda node: _called(node) == "is_compiling"),
        ".device.type, .is_cuda": _counted(asked, _asks_device),
    }


def import_cycles(source: Source) -> list[list[str]]:
    """Return the groups of files that import each other, the largest first; imports inside functions count.

    ``from a.b import c`` is an import of ``a.b.c`` where that is a module, and of ``a.b`` otherwise. Python runs the parent
    packages' ``__init__`` too, but that is not counted: nearly every file would be in a cycle with its own package. A package
    takes part where something is taken from itself. Not counted either: what stands under ``if TYPE_CHECKING``, and
    modules named by strings (``importlib.import_module``).
    """
    paths = {source.module(path): path for path in source.trees}
    graph = {
        path: sorted({paths[name] for name in _imported(tree, source.module(path), path, paths) if paths[name] != path})
        for path, tree in source.trees.items()
    }
    groups = [sorted(group) for group in _components(graph) if len(group) > 1]
    return sorted(groups, key=lambda group: (-len(group), group))


def _imported(tree: ast.Module, module: str, path: str, known: Mapping[str, str]) -> Iterator[str]:
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, module, path)
            names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
        else:
            continue
        yield from (name for name in names if name in known)


def _base(node: ast.ImportFrom, module: str, path: str) -> str:
    if not node.level:
        return node.module or ""
    up = node.level - 1 if path.endswith("__init__.py") else node.level
    parents = module.split(".")[: -up or None]
    return ".".join([*parents, node.module] if node.module else parents)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those that only a type checker reads."""
    yield node
    children: Sequence[ast.AST] = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING":
        children = node.orelse
    for child in children:
        yield from _executed(child)


def _components(graph: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Strongly connected components, after Tarjan (1972)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in graph[node]:
            if other not in order:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], order[other])
        if lowest[node] == order[node]:
            start = stack.index(node)
            found.append(stack[start:])
            del stack[start:]

    for node in graph:
        if node not in order:
            visit(node)
    return found


def _counted(trees: Mapping[str, ast.Module], is_one) -> dict[str, int]:
    counts = {path: sum(1 for node in ast.walk(tree) if is_one(node)) for path, tree in trees.items()}
    return {path: count for path, count in counts.items() if count}


def _name(node: ast.AST | None) -> str:
    """The last word of a dotted name, also of a generic one."""
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _called(node: ast.AST) -> str:
    return _name(node.func) if isinstance(node, ast.Call) else ""


def _of_extension(node: ast.AST) -> bool:
    function = node.func if isinstance(node, ast.Call) else None
    return isinstance(function, ast.Attribute) and _name(function.value).startswith("_")


def _asks_device(node: ast.AST) -> bool:
    if not isinstance(node, ast.Attribute):
        return False
    return node.attr == "is_cuda" or (node.attr == "type" and _name(node.value) == "device")


def _tested(node: ast.AST) -> list[str]:
    """The names of the classes for which an expression tests."""
    if isinstance(node, ast.Call) and _called(node) in ("isinstance", "issubclass") and len(node.args) == 2:
        return _names(node.args[1])
    if isinstance(node, ast.MatchClass):
        return [_name(node.cls)]
    if isinstance(node, ast.Compare) and any(_called(side) == "type" for side in (node.left, *node.comparators)):
        return [name for side in (node.left, *node.comparators) for name in _names(side)]
    return []


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Tuple | ast.Set | ast.List):
        return [name for item in node.elts for name in _names(item)]
    if isinstance(node, ast.BinOp):
        return _names(node.left) + _names(node.right)
    return [_name(node)]
