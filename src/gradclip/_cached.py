"""``cached_property`` without a lock: Python 3.11's has one for all instances, and a child forked while it is held hangs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

__all__ = ["cached_property"]

if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property
else:

    class cached_property:  # noqa: N801
        """As Python 3.12 has it: two threads may both compute a value, of which one is kept."""

        def __init__(self, compute: Any) -> None:
            self._compute = compute
            self.__doc__ = compute.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self._name = name

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            """Compute it once, and keep it where it is found before this descriptor is."""
            if instance is None:
                return self
            found = instance.__dict__[self._name] = self._compute(instance)
            return found
