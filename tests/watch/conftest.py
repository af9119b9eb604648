"""Fixtures for watching in this process."""

from tests.watch.support import recording

__all__ = ["recording"]
