"""Scripts that do not get far, or not where one would like: the same words and code as ever, and a line of ours."""

from __future__ import annotations

import pytest

from tests.scripts.support import plain, program, watched
from tests.scripts.test_programs import same

SCRIPTS = {
    "missing": (None, "did not import PyTorch"),
    "broken": ("def f(:\n", "did not import PyTorch"),
    "error": ("raise OSError('no')\n", "did not import PyTorch"),
    "import_error": ("import torch.no_such_thing\n", "NOTHING WAS RECORDED"),
    "leaving": ("import torch, sys\nsys.exit('a message')\n", "NOTHING WAS RECORDED"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_training(name, tmp_path):
    text, line = SCRIPTS[name]
    if text is not None:
        (tmp_path / f"{name}.py").write_text(text)
    usual = plain([f"{name}.py"], tmp_path)
    under_watch = watched([f"{name}.py"], tmp_path)
    assert usual.code != 0
    same(usual, under_watch)
    assert line in under_watch.said[0]
    assert not under_watch.runs


def test_a_script_that_never_trains_is_told_so(tmp_path):
    same(plain(program("untrained"), tmp_path), under_watch := watched(program("untrained"), tmp_path))
    assert "backward() was called 0 times" in under_watch.said[0]
    assert not under_watch.runs
