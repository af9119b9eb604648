"""Calls that clip: whose gradients they reach, and whether these are still the ones that are stepped."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from gradclip.norms import L2
from gradclip.result import ClipResult
from gradclip.runs.schema import Event
from gradclip.watch.observe.gradient_resets import GradientResets
from gradclip.watch.observe.loose_clips import LooseClips, loose_event
from gradclip.watch.observe.manual_loop import ManualLoop
from gradclip.watch.observe.step_log import StepLog
from gradclip.watch.observe.steps_in_backward import StepsInBackward
from gradclip.watch.observe.stream_registry import StreamRegistry
from gradclip.watch.observe.unused_gradients import UnusedGradients
from gradclip.watch.record.grad_scale import norms_at_step
from gradclip.watch.record.open_step import OpenStep
from gradclip.watch.record.stream import Stream

if TYPE_CHECKING:
    from gradclip.torch import InBackward

__all__ = ["ClipCalls", "opened"]

EXACT: Final = (torch.float32, torch.float64)
"""Gradients of these types have, to six digits, the norm that they were multiplied to."""


class ClipCalls:
    """Note each clipping in the steps that are open; a clipping counts where it reached gradients that are stepped afterwards.

    Args:
        streams: finds whose a parameter is.
        manual: the loop by hand, which has tensors of its own.
        in_backward: the steps that are taken inside ``backward``.
        log: takes the events.
        resets: has to know that a clipping is no reset.
        unused: has to know the same.
        limited: whether tensors that are none of the streams' are another model's.
    """

    def __init__(
        self,
        streams: StreamRegistry,
        manual: ManualLoop,
        in_backward: StepsInBackward,
        log: StepLog,
        resets: GradientResets,
        unused: UnusedGradients,
        limited: bool,
    ) -> None:
        self._streams, self._manual, self._in_backward = streams, manual, in_backward
        self._log, self._resets, self._unused, self._limited = log, resets, unused, limited
        self._loose = LooseClips()
        self._reached: list[Stream] = []

    def before(self, parameters: Sequence[Tensor]) -> None:
        """Gradients are about to be clipped."""
        streams = self._reached = self._streams.holding(parameters)
        if not streams:
            self._loose.begin(parameters)
            by_hand = self._manual.stream
            if by_hand is not None and any(map(by_hand.has, parameters)):
                streams.append(by_hand)
        self._resets.before_clip(streams)
        for stream in streams:
            step = opened(stream)
            if not step.in_step:
                self.drop_if_replaced(stream, step)
            if step.before is None and self._in_backward.under_way is None:
                step.before = stream.grad_norms()

    def after(
        self,
        parameters: Sequence[Tensor],
        function: str,
        threshold: Tensor | float | None,
        norm: float | None = None,
        result: ClipResult | None = None,
        clipper: Any = None,
    ) -> None:
        """Gradients were clipped: by which function, to which threshold in which norm, and what this library says of it."""
        streams = self._reached
        clip = Event("clip", function=function, norm=norm, threshold=threshold if isinstance(threshold, float) else None)
        self._log.clip(streams, parameters, clip)
        if not self._limited and all(stream.by_hand for stream in streams):
            clip = loose_event(clip, parameters)
            if not streams:
                self._log.event(clip)
            self._loose.end(parameters, clip, threshold, self._streams.all())
        self._resets.after_clip(streams)
        self._unused.known_change(stream for stream in streams if stream.open is not None and not stream.open.in_step)
        measured = None if clipper is None or result is None else _norms_after(clipper, result, parameters)
        for stream in streams:
            step = opened(stream)
            if step.evaluations <= 1 and self._counts(stream, step, parameters, measured):
                step.threshold = threshold
                step.skipped = result is not None and result.skipped
        if self._manual.under_way:
            self._manual.mark()

    def before_in_backward(self, in_backward: InBackward, i: int) -> None:
        """A gradient is about to be clipped as it appears; of one ``backward``, all that are come to one call."""
        parameters = in_backward.parameters
        if not self._in_backward.before_clipping:
            streams = self._streams.holding(parameters)
            fixed = in_backward.clipping.threshold.fixed
            self._log.clip(streams, parameters, Event("clip", function=str(in_backward.clipping), threshold=fixed))
        self._in_backward.clips(parameters[i])

    def after_backward(self) -> None:
        """Gradients that were clipped as they appeared wait for a step outside of ``backward``."""
        clipped, self._in_backward.before_clipping = self._in_backward.before_clipping, {}
        for stream in self._streams.holding([parameter for parameter, _ in clipped.values()]) if clipped else ():
            own = [(p, norm) for p, norm in clipped.values() if stream.has(p)]
            step = opened(stream)
            step.before = stream.grad_norms()
            step.before[[stream.place_of(p) for p, _ in own]] = torch.stack([norm for _, norm in own]).to(step.before)
            first = own[0][0]
            step.clipped, step.marks = (weakref.ref(first), id(first.grad)), None

    def before_backward(self) -> None:
        """What is clipped already is remembered as it is: ``backward`` may add to it."""
        self._loose.forget()
        for stream in self._streams.all():
            step = stream.open
            if step is not None and step.clipped is not None and step.marks is None:
                step.marks = stream.marks()

    def before_step(self, stream: Stream, step: OpenStep, closure: bool) -> None:
        """The gradients are about to be used: what was clipped is these, or they were copied from it, or it is nothing."""
        self.drop_if_replaced(stream, step)
        copied = self._loose.take(stream) if self._loose and step.before is None and not closure else None
        if copied is not None:
            clip, step.before = copied
            step.threshold = clip.threshold
            self._log.replace(clip.event, clip.event_of(stream))

    @staticmethod
    def drop_if_replaced(stream: Stream, step: OpenStep) -> None:
        """A clipping before the step counts as long as the gradients are those, and no ``backward`` has added to them."""
        if step.clipped is None:
            return
        reference, grad = step.clipped
        parameter = reference()
        same = parameter is not None and parameter.grad is not None and id(parameter.grad) == grad
        if not same or (step.marks is not None and step.marks != stream.marks()):
            step.forget_clipping()

    def _counts(self, stream: Stream, step: OpenStep, parameters: Sequence[Tensor], measured: Tensor | None) -> bool:
        """Note what a clipping has left; return whether it reached any gradient."""
        if self._in_backward.under_way is not None:
            self._in_backward.clipped()
        elif step.in_step or stream.by_hand:
            known = measured is not None and stream.is_all(parameters)
            step.after = measured if known else norms_at_step(stream.grad_norms(), stream.optimizer)
        else:
            reached = next((p for p in parameters if p.grad is not None and stream.has(p)), None)
            if reached is None:
                step.before = step.before if step.clipped else None
                return False
            step.clipped, step.marks = (weakref.ref(reached), id(reached.grad)), None
        return True


def _norms_after(clipper: Any, result: ClipResult, parameters: Sequence[Tensor]) -> Tensor | None:
    """Return the L2 norms that this library has worked out anyway; None where it has others, or may have left some out."""
    current, after = getattr(clipper, "current", None), result.clipped_tensor_norms
    if current is None or current.target.shards is not None or getattr(clipper.clipping, "norm", None) != L2:
        return None
    if result.skipped is not False or not isinstance(after, Tensor) or not len(result.factors):
        return None
    grads = [p.grad for p in parameters]
    return after if all(type(g) is Tensor and g.dtype in EXACT and g.layout is torch.strided for g in grads) else None


def opened(stream: Stream) -> OpenStep:
    """Return a stream's next step, begun if it was not."""
    if stream.open is None:
        stream.open = OpenStep()
    return stream.open
