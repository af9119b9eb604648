"""The tests of this folder, and what the conformance suite has of layouts and models, in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.gpu.support import INTERPRETED

pytest.importorskip("triton", reason="Triton is not installed: there are no GPU kernels to test")
pytestmark = [
    pytest.mark.skipif(INTERPRETED, reason="this is the interpreter's process"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU runs them, in this process"),
]

ROOT = Path(__file__).resolve().parents[2]
MODELS = ["tests/conformance", "-k", "mixed or units_follow or groups or tied or (agc and (strided or sparse))"]


@pytest.mark.parametrize("asked", [["tests/gpu"], MODELS], ids=["the kernels", "layouts and models"])
def test_in_the_interpreter(asked):
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *asked]
    environment = dict(os.environ, TRITON_INTERPRET="1")
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stdout[-4000:]
    assert " passed" in run.stdout
