"""Gradients that appeared since the last step: whether they were reset before a step used them, or changed unseen."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

from torch import Tensor

from gradclip.watch.record.stream import Stream, version_of

__all__ = ["UnusedGradients"]


class Sample:
    """One parameter of a stream that has a gradient; it stands for all of them."""

    def __init__(self, parameter: Tensor, grad: Tensor) -> None:
        self.parameter = weakref.ref(parameter)
        self.grad = (id(grad), version_of(grad))
        self.weights = version_of(parameter)

    def is_reset(self, stream: Stream) -> bool:
        """Whether the gradients are gone, or were changed and are all zero."""
        parameter = self.parameter()
        grad = None if parameter is None else parameter.grad
        if grad is None:
            return True
        return (id(grad), version_of(grad)) != self.grad and all_zero(stream)

    @property
    def is_changed(self) -> bool:
        """Whether the gradient is another one, or was written to."""
        parameter = self.parameter()
        grad = None if parameter is None else parameter.grad
        return grad is not None and (id(grad), version_of(grad)) != self.grad

    @property
    def is_used(self) -> bool:
        """Whether the weights have changed since: as in the first half of a SAM step, or where they are updated by hand."""
        parameter = self.parameter()
        return parameter is not None and version_of(parameter) != self.weights


class UnusedGradients:
    """Follow a sample of each stream from the ``backward`` that gives it a gradient to its step; called by the session."""

    def __init__(self) -> None:
        self._samples: weakref.WeakKeyDictionary[Stream, Sample] = weakref.WeakKeyDictionary()

    def remember(self, streams: Iterable[Stream]) -> None:
        """The gradients of these streams are as they should be: ``backward`` has run, or what is known has changed them."""
        for stream in streams:
            if stream.by_hand:
                continue
            parameter = stream.first_with_grad()
            if parameter is not None and parameter.grad is not None:
                self._samples[stream] = Sample(parameter, parameter.grad)

    def take_reset(self) -> list[tuple[Stream, bool]]:
        """Return the streams whose gradients were reset since, and whether anything had used them by then."""
        found = [(stream, sample) for stream, sample in self._samples.items() if sample.is_reset(stream)]
        for stream, _ in found:
            del self._samples[stream]
        return [(stream, sample.is_used) for stream, sample in found]

    def changed(self, stream: Stream) -> bool:
        """Whether something that is not known has changed the gradients since."""
        sample = self._samples.get(stream)
        return sample is not None and sample.is_changed

    def used(self, stream: Stream) -> None:
        """A step has used the gradients."""
        self._samples.pop(stream, None)


def all_zero(stream: Stream) -> bool:
    """Whether every gradient is zero; waits for the device."""
    grads = [p.grad for p in stream.parameters() if p is not None and p.grad is not None]
    return not any(bool((grad != 0).any()) for grad in grads)
