"""Find the array library that holds an array, so that a rule is written once for all of them."""

from __future__ import annotations

from types import ModuleType
from typing import Any, TypeAlias

__all__ = ["Array", "namespace"]

Array: TypeAlias = Any
"""An array of any library that follows the array API: NumPy, PyTorch, JAX."""

_of_type: dict[type, ModuleType] = {}


def namespace(array: Array) -> ModuleType:
    """Return the array-API namespace of ``array``."""
    if type(array) not in _of_type:
        # Imported late: array_api_compat pulls in NumPy, and `import gradclip` must stay light.
        from array_api_compat import array_namespace

        _of_type[type(array)] = array_namespace(array)
    return _of_type[type(array)]
