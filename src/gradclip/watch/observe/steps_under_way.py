"""Which optimizers are in their ``step()``: a step inside another one, on the same parameters, is a part of it."""

from __future__ import annotations

import sys
import weakref

import torch

from gradclip.watch.record.stream import Stream, parameters_of

__all__ = ["StepsUnderWay"]


class StepsUnderWay:
    """A stack of steps; one that an exception has ended is noticed when it matters."""

    def __init__(self) -> None:
        self._steps: list[tuple[weakref.ref[torch.optim.Optimizer], Stream, bool]] = []

    @property
    def innermost(self) -> Stream | None:
        """The stream whose step is under way."""
        return self._steps[-1][1] if self._steps else None

    def outer_of(self, optimizer: torch.optim.Optimizer, stream: Stream) -> Stream | None:
        """Return the stream that the step of this optimizer, which begins, is a part of."""
        while self._steps:
            reference, outer, _ = self._steps[-1]
            other = reference()
            if other is not None and other is not optimizer and _is_running(other):
                shared = outer is stream or any(map(outer.has, parameters_of(optimizer)))
                return outer if shared else None
            self._steps.pop()  # ended by an exception
        return None

    def begin(self, optimizer: torch.optim.Optimizer, stream: Stream, part: bool) -> None:
        """A step begins; ``part`` of another, or one by itself."""
        self._steps.append((weakref.ref(optimizer), stream, part))

    def end(self, optimizer: torch.optim.Optimizer) -> Stream | None:
        """A step has ended; return its stream where it was one by itself."""
        while self._steps:
            reference, stream, part = self._steps.pop()
            if reference() is optimizer:
                return None if part else stream
        return None


def _is_running(optimizer: torch.optim.Optimizer) -> bool:
    """Whether ``step()`` of this optimizer has called what runs now: ``self`` of PyTorch's wrapper around it."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "wrapper" and frame.f_locals.get("self") is optimizer:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
