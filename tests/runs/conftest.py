"""Fixtures for the run file."""

from tests.runs.support import reading

__all__ = ["reading"]
