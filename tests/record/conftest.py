"""Fixtures for the run file."""

from tests.record.support import reading

__all__ = ["reading"]
