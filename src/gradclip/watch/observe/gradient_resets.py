"""Whether a stream's gradients were reset between two of its steps, or each step takes the sum of all so far."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from gradclip.watch.record.stream import Stream, grad_norms, version_of

__all__ = ["GradientResets"]

READS: Final = 5
"""So often a gradient that seems to be kept is read from its device, until one is found that was not zero."""


@dataclass
class FollowedGradient:
    """One gradient of a stream, followed from the end of a step until something resets it."""

    parameter: weakref.ref[Tensor] | None = None
    """None once its gradient was reset."""
    mark: tuple[int, int] | None = None
    backwards: int = 0
    """How many calls of ``backward`` have begun since the step."""
    least: Tensor | None = None
    """The smallest norm that it had when one of them began."""
    reads_left: int = READS
    stays: bool = False
    """Whether it is known that what leaves no mark is no reset either."""

    def begin(self, parameter: Tensor | None) -> None:
        """A step is finished, and this parameter still has its gradient."""
        self.parameter = None if parameter is None else weakref.ref(parameter)
        self.backwards, self.least = 0, None
        self.remember()

    def notice_reset(self) -> None:
        """Notice a reset: the gradient is gone, is another one, or was written to."""
        if self.parameter is not None and _mark(self.parameter()) != self.mark:
            self.parameter = None

    def remember(self) -> None:
        """What has happened to the gradient so far is no reset, unless it is gone."""
        self.mark = None if self.parameter is None else _mark(self.parameter())
        if self.mark is None:
            self.parameter = None

    def before_backward(self) -> None:
        """``backward`` may add to the gradient as it is."""
        self.notice_reset()
        if self.parameter is None:
            return
        self.backwards += 1
        if self.reads_left and not self.stays:
            norm = grad_norms([self.parameter()])
            self.least = norm if self.least is None else torch.fmin(self.least, norm)

    def is_stale(self) -> bool:
        """Whether the step that begins takes what an earlier one has taken already."""
        if self.parameter is None or self.mark is None or not self.backwards:
            return False
        mark = _mark(self.parameter())
        return mark is not None and mark[0] == self.mark[0] and self._was_kept()

    def _was_kept(self) -> bool:
        """``grad.data.zero_()`` leaves no mark, so the numbers themselves decide, at the first few times alone."""
        if self.least is not None:
            self.reads_left -= 1
            self.stays = float(self.least) != 0
        return self.stays


class GradientResets:
    """Follow one gradient of each stream; every method is called by the session.

    One gradient stands for all of a stream, and its identity and version for its numbers: a few microseconds a step.
    """

    def __init__(self) -> None:
        self._kept: dict[int, FollowedGradient] = {}
        """By the stream's number, those that were not reset yet; in most loops none while ``backward`` runs."""

    def finished(self, stream: Stream) -> None:
        """An optimizer's step is over."""
        if stream.by_hand:
            return
        followed: FollowedGradient | None = stream.kept
        if followed is None:
            followed = stream.kept = FollowedGradient()
        followed.begin(stream.first_with_grad())
        self._kept[stream.number] = followed

    def before_backward(self) -> None:
        """``backward`` is about to run."""
        for number, followed in list(self._kept.items()):
            followed.before_backward()
            if followed.parameter is None:
                del self._kept[number]

    def after_backward(self) -> None:
        """``backward`` has run, and has added to them."""
        for followed in self._kept.values():
            followed.remember()

    def before_clip(self, streams: Iterable[Stream]) -> None:
        """The gradients of these streams are about to be written to."""
        for followed in self._of(streams):
            followed.notice_reset()

    def after_clip(self, streams: Iterable[Stream]) -> None:
        """They were written to, and this is no reset."""
        for followed in self._of(streams):
            followed.remember()

    def is_stale(self, stream: Stream) -> bool:
        """Whether the stream's gradients were not reset since its last step, and ``backward`` has run since."""
        followed = self._kept.get(stream.number)
        return followed is not None and followed.is_stale()

    def _of(self, streams: Iterable[Stream]) -> list[FollowedGradient]:
        return [self._kept[stream.number] for stream in streams if stream.number in self._kept]


def _mark(parameter: Tensor | None) -> tuple[int, int] | None:
    """Which gradient a parameter that is trained has, and in which version, as ``Stream.marks``."""
    grad = None if parameter is None or not parameter.requires_grad else parameter.grad
    return None if grad is None else (id(grad), version_of(grad))
