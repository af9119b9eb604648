"""Wrap a function without being seen: not in tracebacks, not in what a warning points at."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

__all__ = ["Call", "wrapper"]

FILE = "<gradclip importlib._bootstrap>"
"""``warnings.warn(..., stacklevel=n)`` counts no frame of the import system, which it knows by these two words in the file's
name: so a warning of PyTorch's points at the line of the script that it would have pointed at."""
WATCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
"""The folder of everything that watches."""


@dataclass
class Call:
    """A call that is about to happen; ``replaced`` says that ``result`` stands for it and it must not happen."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    note: Any = None
    replaced: bool = False
    result: Any = None

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """Return an argument, by its place or by its name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)


def wrapper(
    original: Callable[..., Any], before: Callable[[Call], object], after: Callable[[Call], object] | None = None
) -> Callable[..., Any]:
    """Return a function that calls ``before``, the original with its very arguments, and ``after``.

    Neither of the two may raise. An exception of the original passes, and ``after`` is not called.
    """

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        call = Call(args, kwargs)
        try:
            before(call)
            if call.replaced:
                return call.result
            call.result = original(*call.args, **call.kwargs)
            if after is not None:
                after(call)
        except BaseException:
            hide_in_tracebacks()
            raise
        return call.result

    wrapped.__code__ = wrapped.__code__.replace(co_filename=FILE)
    return functools.update_wrapper(wrapped, original)


def hide_in_tracebacks() -> None:
    """An exception has passed through here: should it end the script, its traceback is to read as without us."""
    if getattr(sys.excepthook, "_hides_gradclip", False):
        return
    shown_by = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        _clean(error)
        shown_by(kind, error, without_gradclip_frames(trace))

    hook._hides_gradclip = True  # type: ignore[attr-defined]
    sys.excepthook = hook


def _clean(error: BaseException) -> None:
    """Clean the exceptions that led to this one, too."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = without_gradclip_frames(one.__traceback__)
            waiting += [one.__cause__, one.__context__]


def without_gradclip_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback without our frames; where it ends in our own work (Ctrl-C), it ends in the script's line."""
    kept: list[TracebackType] = []
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name.startswith(WATCH):
            break
        if name != FILE:
            kept.append(trace)
        trace = trace.tb_next
    for this, following in zip(kept, [*kept[1:], None], strict=True):
        this.tb_next = following
    return kept[0] if kept else None
