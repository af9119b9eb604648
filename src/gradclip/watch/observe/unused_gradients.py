"""Gradients that appeared since the last step: whether they were reset before a step used them, or changed unseen."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Final

from torch import Tensor

from gradclip.backends import local_of
from gradclip.watch.record.stream import Stream, grad_norms, version_of

__all__ = ["UnusedGradients", "all_zero"]

LOOKS: Final = 5
"""At so many steps of a stream the numbers themselves are compared: ``grad.data.clamp_()`` leaves no mark."""


class Sample:
    """One parameter of a stream that has a gradient; it stands for all of them."""

    __slots__ = ("before", "fresh", "grad", "looks_left", "norm", "parameter", "weights")

    def __init__(self, parameter: Tensor) -> None:
        self.parameter = weakref.ref(parameter)
        self.before: tuple[int, int] | None = None
        self.grad: tuple[int, int] | None = None
        self.weights = 0
        self.fresh = False
        """Whether the gradient appeared, or was added to, since the last step."""
        self.norm: Tensor | None = None
        self.looks_left = LOOKS

    def mark(self) -> tuple[int, int] | None:
        """Return which gradient it has, and in which version."""
        parameter = self.parameter()
        grad = None if parameter is None or not parameter.requires_grad else parameter.grad
        return None if grad is None else (id(grad), version_of(grad))

    def is_reset(self, stream: Stream) -> bool:
        """Whether the gradients are gone, or were changed and are all zero."""
        mark = self.mark()
        return mark is None or (mark != self.grad and all_zero(stream))

    def is_used(self) -> bool:
        """Whether the weights have changed since: as in the first half of a SAM step, or where they are updated by hand."""
        parameter = self.parameter()
        return parameter is None or version_of(parameter) != self.weights


class UnusedGradients:
    """Follow a sample of each stream from the ``backward`` that gives it a gradient to its step; called by the session."""

    def __init__(self) -> None:
        self._changes = 0
        self._looks: list[Tensor] = []

    def before_backward(self, streams: Iterable[Stream]) -> None:
        """``backward`` is about to run."""
        for stream in streams:
            sample: Sample | None = stream.fresh
            if sample is not None:
                sample.before = sample.mark()

    def after_backward(self, streams: Iterable[Stream]) -> None:
        """``backward`` has run, and given gradients to some of these."""
        for stream in streams:
            sample: Sample | None = stream.fresh
            mark = None if sample is None else sample.mark()
            if sample is None or mark is None:
                parameter = stream.first_with_grad()
                if parameter is None:
                    continue
                sample = stream.fresh = Sample(parameter)
                mark = sample.mark()
            if mark != sample.before:
                parameter = sample.parameter()
                sample.fresh, sample.grad = True, mark
                sample.weights = 0 if parameter is None else version_of(parameter)
                sample.norm = grad_norms([parameter]) if sample.looks_left else None

    def known_change(self, streams: Iterable[Stream]) -> None:
        """Something that is known, as a clipping, has changed the gradients of these streams."""
        for stream in streams:
            sample: Sample | None = stream.fresh
            if sample is not None:
                sample.grad, sample.norm = sample.mark(), None

    def take_reset(self, streams: Iterable[Stream]) -> list[tuple[Stream, bool]]:
        """Return the streams whose gradients were reset since, and whether anything had used them by then."""
        found = [
            stream for stream in streams if stream.fresh is not None and stream.fresh.fresh and stream.fresh.is_reset(stream)
        ]
        for stream in found:
            stream.fresh.fresh = False
        return [(stream, stream.fresh.is_used()) for stream in found]

    def look_for_changes(self, stream: Stream) -> None:
        """A step begins; note whether something that is not known has changed the gradients since ``backward``."""
        sample: Sample | None = stream.fresh
        mark = None if sample is None or not sample.fresh else sample.mark()
        if sample is None or mark is None:
            return
        if mark != sample.grad:
            self._changes += 1
        elif sample.norm is not None:
            sample.looks_left -= 1
            self._looks.append(grad_norms([sample.parameter()]) != sample.norm)

    def unknown_changes(self) -> int:
        """Return at how many steps such a change was seen."""
        return self._changes + sum(bool(look) for look in self._looks)

    def used(self, stream: Stream) -> None:
        """A step has used the gradients."""
        if stream.fresh is not None:
            stream.fresh.fresh = False


def all_zero(stream: Stream) -> bool:
    """Whether every gradient is zero; waits for the device."""
    grads = [p.grad for p in stream.parameters() if p is not None and p.grad is not None]
    local = map(local_of, grads)  # of a DTensor: other ranks are not asked
    return not any(bool((grad != 0).any()) for grad in local if grad is not None)
