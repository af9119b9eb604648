"""What the labs' tests share."""

from __future__ import annotations

import pytest

from gradclip.labs import charlm, heavy_noise


@pytest.fixture
def small(monkeypatch):
    """Less text and fewer validation points a step, where the numbers do not matter."""
    monkeypatch.setattr(charlm, "BATCH", 2)
    monkeypatch.setattr(charlm, "LENGTH", 8)
    monkeypatch.setattr(heavy_noise, "VALIDATION", 100)
