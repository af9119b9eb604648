"""The processes of the distributed tests."""

from __future__ import annotations

import pytest

from tests.distributed.ranks import Ranks


@pytest.fixture(scope="session")
def ranks():
    """Call functions on several ranks: ``ranks(4, function, *arguments)`` returns what each returned."""
    started = Ranks()
    yield started
    started.stop()
