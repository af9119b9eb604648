"""Where the kernels run: on a GPU, or in Triton's interpreter on the CPU.

The interpreter has to be asked for before Triton is imported, so other tests cannot share its process: without a GPU these
tests skip, and ``test_interpreted.py`` runs them all in a process of their own.
"""

from __future__ import annotations

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def need_kernels() -> None:
    """Skip a module, or a test, where the kernels do not run."""
    pytest.importorskip("triton", reason="Triton is not installed: there are no GPU kernels to test")
    if not INTERPRETED and not torch.cuda.is_available():
        pytest.skip("no GPU; test_interpreted.py runs this in a process with TRITON_INTERPRET=1", allow_module_level=True)
