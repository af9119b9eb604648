"""docs/architecture.md shows what runs, as it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gradclip

ROOT = Path(__file__).resolve().parents[2]
COMPILED = [file for file in Path(gradclip.__file__).parent.rglob("_kernel*") if file.suffix in (".so", ".pyd")]


@pytest.mark.skipif(
    not COMPILED or os.environ.get("GRADCLIP_KERNEL") == "0", reason="the traces are those of the compiled kernel"
)
@pytest.mark.parametrize("name", ["clip", "watch"])
def test_traces_are_current(name):
    """If this fails, ``python -m benchmarks.shape --write`` brings the page up to date."""
    command = [sys.executable, "-m", "benchmarks.shape", "--trace", name]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert page.split(f"<!-- trace: {name} -->\n")[1].split(f"<!-- /trace: {name} -->")[0] == printed
