"""What every test shares: one thread (tests run side by side) and seeded randomness."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
settings.register_profile(
    "gradclip",
    deadline=None,
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],  # a busy machine is no bug
)
settings.load_profile("gradclip")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
