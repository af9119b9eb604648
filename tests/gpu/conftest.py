"""The device whose tensors the kernels take."""

from __future__ import annotations

import pytest
import torch

from tests.gpu.support import INTERPRETED, need_kernels


@pytest.fixture(scope="session")
def device():
    """A GPU, or the CPU where Triton interprets."""
    need_kernels()
    return torch.device("cpu") if INTERPRETED else torch.device("cuda", torch.cuda.current_device())
