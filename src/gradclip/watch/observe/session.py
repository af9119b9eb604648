"""Follow a training loop from its own calls: which step is which, what was clipped, in which order things happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gradclip.runs.schema import Event
from gradclip.watch.observe.call_sites import CallSites
from gradclip.watch.observe.clip_calls import ClipCalls, opened
from gradclip.watch.observe.gradient_resets import GradientResets
from gradclip.watch.observe.inside_backward import inside_backward
from gradclip.watch.observe.manual_loop import ManualLoop
from gradclip.watch.observe.missing_steps import MissingSteps
from gradclip.watch.observe.step_log import StepLog
from gradclip.watch.observe.steps_in_backward import StepsInBackward
from gradclip.watch.observe.steps_under_way import StepsUnderWay
from gradclip.watch.observe.stream_registry import StreamRegistry
from gradclip.watch.observe.unused_gradients import UnusedGradients
from gradclip.watch.record.grad_scale import divide_by_scale, norms_at_step
from gradclip.watch.record.open_step import OpenStep
from gradclip.watch.record.recorder import Measured, Recorder
from gradclip.watch.record.stream import Stream

__all__ = ["Session"]

UPDATE_EVERY = 10
"""How far a step moves the weights needs a copy of them, so it is measured at one step in ten."""


@dataclass
class Session:
    """The state of one watched run; every method is called by a patch, in the order of the script's own calls.

    Args:
        recorder: where measured steps go.
        every: keep the norms of single tensors at every n-th step.
        only: watch these optimizers alone; all by default.
        names: names of parameters that are known already, by identity.
    """

    recorder: Recorder
    every: int = 1
    only: Sequence[torch.optim.Optimizer] = ()
    names: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._streams = StreamRegistry(self.only, self.names)
        self._log = StepLog(CallSites())
        self._resets, self._missing_steps = GradientResets(), MissingSteps()
        self._unused, self._under_way, self._in_backward = UnusedGradients(), StepsUnderWay(), StepsInBackward()
        for optimizer in self.only:
            self._missing_steps.made(optimizer, self._streams.number(optimizer))
        streams = self._streams
        self.manual = ManualLoop(streams.by_hand, self._measured, self._record, streams.is_owned, streams.any_optimizer)
        self.clips = ClipCalls(
            streams, self.manual, self._in_backward, self._log, self._resets, self._unused, limited=bool(self.only)
        )
        self.backwards = 0
        self.hooked = 0
        """Parameters with hooks of the script's own."""

    # What the script calls -------------------------------------------------------------------------------------------

    def optimizer_made(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer exists, so updates are its business."""
        if not self.only:
            self.manual.optimizer_made()
            self._missing_steps.made(optimizer, self._streams.number(optimizer))

    def optimizer_found(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer was there before the watching; it counts when it is used."""
        self._streams.find(optimizer)

    def before_backward(self, tensor: Tensor) -> None:
        """``backward`` is about to run on ``tensor``."""
        self.backwards += 1
        if not self.only:
            self.manual.before_backward(tensor)
        self._resets.before_backward()
        self._missing_steps.before_backward()
        under_way = self._under_way.innermost
        again = under_way is not None and under_way.open is not None and under_way.open.evaluations > 1
        if self._log.gathering and not again:
            self._drop_what_was_reset()
        self._unused.before_backward(self._streams.all())
        self._log.backward(tensor, counts=not again)
        self.clips.before_backward()

    def after_backward(self) -> None:
        """``backward`` has run."""
        self._resets.after_backward()
        self._missing_steps.after_backward()
        self.manual.after_backward()
        if self.manual.under_way and self.manual.stream is not None:
            self._sample(self.manual.stream)
        self._unused.after_backward(self._streams.all())
        stream = self._in_backward.stream
        if stream is not None:
            step = opened(stream)
            step.before, step.after = self._in_backward.take(stream)
            self._finish(stream)
        self.clips.after_backward()

    def before_step(self, optimizer: torch.optim.Optimizer, closure: bool) -> bool:
        """``optimizer.step()`` begins; other hooks of the step may still clip. Return whether it is a step by itself."""
        inside = inside_backward()
        stream = self._streams.stepped_in_backward(optimizer) if inside else self._streams.of(optimizer)
        if stream is None:
            return True
        outer = self._under_way.outer_of(optimizer, stream)
        self._under_way.begin(optimizer, stream, part=outer is not None)
        if outer is not None:
            if outer is not stream and not stream.step:
                self._streams.join(optimizer, outer)
            return False
        if self.manual.stream is not None:
            self._nothing_by_hand(self.manual.stream)
        if inside and stream.in_backward:
            if self._in_backward.stream is None:
                self._step_begins(stream, closure, "inside backward()")
            self._in_backward.begin(optimizer, stream)
            return True
        stream.follow(optimizer)
        self._step_begins(stream, closure)
        if not closure and stream.open is not None:
            self._measure_step(stream, stream.open, optimizer)
        return True

    def before_evaluation(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer calls its closure."""
        stream = self._streams.of(optimizer)
        if stream is not None:
            opened(stream).evaluations += 1

    def after_evaluation(self, optimizer: torch.optim.Optimizer) -> None:
        """The closure has returned, and other hooks of the step may still clip."""
        stream = self._streams.of(optimizer)
        if stream is None:
            return
        step = opened(stream)
        if step.before is None:
            step.before = stream.grad_norms()
        elif step.evaluations == 1:
            step.after = stream.grad_norms()

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """``optimizer.step()`` has returned."""
        self._missing_steps.step()
        stream = self._under_way.end(optimizer)
        if stream is None:
            return
        if self._in_backward.stream is stream:
            self._in_backward.end()
        else:
            self._finish(stream)

    def zero_grad(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """``zero_grad()`` of an optimizer, or of a module, was called."""
        if inside_backward():  # right after its step
            return
        stream = None if optimizer is None else self._streams.of(optimizer)
        if optimizer is None or stream is not None:
            self._log.event(Event("zero_grad", None if stream is None else stream.number))

    def scaled(self, loss: Tensor, result: Any) -> None:
        """A GradScaler scaled a loss; the loss that is shown is the one before."""
        self._log.scaled(loss, result)

    def unscaled(self, optimizer: torch.optim.Optimizer, scale: Tensor | None) -> None:
        """A GradScaler unscaled an optimizer's gradients; what was measured of them before is in the same unit then."""
        stream = self._streams.of(optimizer)
        if stream is None:
            return
        self._log.event(Event("unscale", stream.number))
        self._unused.known_change([stream])
        if stream.open is not None and stream.open.before is not None and scale is not None:
            stream.open.before = divide_by_scale(stream.open.before, scale)

    def before_scaler_step(self, optimizer: torch.optim.Optimizer, scale: Tensor | None) -> int:
        """A GradScaler is about to step; return the count of steps, by which a dropped one is told."""
        stream = self._streams.of(optimizer)
        if stream is None:
            return -1
        opened(stream).amp_scale = None if scale is None else scale.detach().clone()
        return stream.step

    def after_scaler_step(self, optimizer: torch.optim.Optimizer, count: int) -> None:
        """A GradScaler's step has returned; without a step of the optimizer it found an Inf and dropped it."""
        stream = self._streams.of(optimizer)
        if stream is not None and stream.step == count:
            opened(stream).skipped = True
            self._log.event(Event("step", stream.number, detail="dropped by the GradScaler"))
            self._finish(stream)

    def close(self, status: str = "finished", exit_code: int | None = None) -> None:
        """The script ends."""
        try:
            self.manual.finish()
            self.manual.release()
            self.recorder.note(**self._missing_steps.meta())
        finally:
            self.recorder.close(status, exit_code)

    @property
    def unknown_changes(self) -> int:
        """Before how many steps something changed the gradients, and it was no call that is known."""
        return self._unused.unknown_changes()

    @property
    def moved(self) -> str:
        """The class of an optimizer whose weights changed although its ``step()`` was never seen; else nothing."""
        return self._missing_steps.moved

    # How it is put together ------------------------------------------------------------------------------------------

    def _drop_what_was_reset(self) -> None:
        """The losses whose gradients no step will see are none of the next step's."""
        for stream, used in self._unused.take_reset(self._streams.all()):
            self._log.drop_losses_of(stream)
            if not used:
                self._log.event(Event("unused", stream.number))

    def _nothing_by_hand(self, stream: Stream) -> None:
        """While an optimizer steps, nothing is updated by hand; what was seen so far has led to its step."""
        waiting = self.manual.optimizer_stepped()
        self._log.give_back([event for measured in waiting for event in measured.events], stream.number)
        stream.open = None
        if not stream.step:
            self.manual.stream = None
            self._streams.drop(stream)

    def _step_begins(self, stream: Stream, closure: bool, detail: str = "") -> None:
        if not closure and self._resets.is_stale(stream):  # a closure resets them later
            self._log.event(Event("stale", stream.number))
        self._log.event(Event("step", stream.number, detail=detail))
        step = opened(stream)
        if step.in_step:  # an exception ended the last step, and the script went on
            step = stream.open = OpenStep()
        step.in_step = True
        self.clips.before_step(stream, step, closure)
        if step.before is None:
            self._unused.look_for_changes(stream)
        self._sample(stream)

    def _sample(self, stream: Stream) -> None:
        """Keep the weights, now and then, to see how far the step moves them."""
        if stream.step % (UPDATE_EVERY * self.every):
            return
        step = opened(stream)
        if step.weights is None:
            step.weights = stream.weight_norms()
            stream.before_update()

    def _measure_step(self, stream: Stream, step: OpenStep, optimizer: torch.optim.Optimizer) -> None:
        norms = norms_at_step(stream.grad_norms(), optimizer)
        step.found_inf = getattr(optimizer, "found_inf", None)
        if step.before is None:
            step.before = norms
        else:
            step.before, step.after = norms_at_step(step.before, optimizer), norms

    def _finish(self, stream: Stream) -> None:
        """Close a step."""
        self._record(self._measured(stream))
        self._unused.used(stream)
        self._resets.finished(stream)

    def _record(self, measured: Measured) -> None:
        if not measured.step:
            self.hooked += measured.stream.hooked()
        self.recorder.add(measured)
        self._missing_steps.stepped(measured.stream)

    def _measured(self, stream: Stream, before: Tensor | None = None) -> Measured:
        step, number = stream.open or OpenStep(), stream.step
        stream.open = None
        stream.step += 1
        if step.before is not None:
            before = step.before
        skipped = step.skipped if isinstance(step.skipped, Tensor) else step.skipped or step.found_inf
        return Measured(
            stream, number, stream.grad_norms() if before is None else before, step.after, self._log.take_losses(stream),
            step.threshold, stream.learning_rates(), step.amp_scale, False if skipped is None else skipped, step.weights,
            stream.update_norms(), number % self.every == 0, self._log.take_events(),
        )  # fmt: skip
