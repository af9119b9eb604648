"""When ``gradclip.torch`` is imported: who watches its functions need not import them to be told."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

__all__ = ["torch_imported", "when_torch_imported"]

Told = Callable[[ModuleType], object]

_imported: list[ModuleType] = []
_waiting: list[Told] = []


def when_torch_imported(tell: Told) -> Callable[[], None]:
    """Hand ``gradclip.torch`` over as soon as it is imported, or at once if it is; return what calls that off."""
    if _imported:
        tell(_imported[0])
    else:
        _waiting.append(tell)
    return lambda: _waiting.remove(tell) if tell in _waiting else None


def torch_imported(module: ModuleType) -> None:
    """``gradclip.torch`` is imported; it calls this itself."""
    _imported.append(module)
    while _waiting:
        _waiting.pop(0)(module)
