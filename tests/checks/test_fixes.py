"""What the checks advise can be copied as it is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gradclip.checks.fixes.threshold import script_of


@pytest.mark.parametrize(
    ("command", "script"),
    [
        (["python", "train.py", "--lr", "1 0"], "train.py --lr '1 0'"),
        (["python", "-B", "-W", "error", "-Xdev", "-X", "utf8", "a b.py"], "'a b.py'"),
        (["python", "-u", "-m", "package", "-x"], "-m package -x"),
        (["python", "-c", "import torch"], "train.py"),
        (["pytest", "tests"], "train.py"),
        (["python"], "train.py"),
        ([], "train.py"),
        (None, "train.py"),
    ],
)
def test_the_script_behind_python_and_its_options(command, script):
    assert script_of(SimpleNamespace(meta={"command": command})) == script
