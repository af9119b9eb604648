"""What the code of the run file may not do."""

from __future__ import annotations

import ast
from pathlib import Path

import gradclip.runs

FORBIDDEN = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "torch", "jax", "eval", "exec", "__import__"}


def names_in(source):
    """Every module that is imported and every name that is used."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Name):
            yield node.id


def test_nothing_is_unpickled_or_executed():
    files = list(Path(gradclip.runs.__file__).parent.glob("*.py"))
    assert len(files) > 5
    for file in files:
        assert not FORBIDDEN & set(names_in(file.read_text(encoding="utf-8"))), file


def test_the_search_finds_what_it_looks_for():
    assert FORBIDDEN & set(names_in("def f():\n    from pickle import loads"))
    assert FORBIDDEN & set(names_in("import torch.nn"))
    assert FORBIDDEN & set(names_in("eval('1')"))
