"""Follow a training loop from its own calls: which step is which, what was clipped, in which order things happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gradclip.result import ClipResult
from gradclip.runs.schema import Event
from gradclip.watch.observe.call_sites import CallSites
from gradclip.watch.observe.gradient_resets import GradientResets
from gradclip.watch.observe.manual_loop import ManualLoop
from gradclip.watch.observe.missing_steps import MissingSteps
from gradclip.watch.observe.step_log import StepLog
from gradclip.watch.observe.stream_registry import StreamRegistry
from gradclip.watch.record.grad_scale import divide_by_scale, norms_at_step
from gradclip.watch.record.recorder import Measured, Recorder
from gradclip.watch.record.stream import Stream

__all__ = ["Session"]

UPDATE_EVERY = 10
"""How far a step moves the weights needs a copy of them, so it is measured at one step in ten."""


@dataclass
class OpenStep:
    """What is known of a stream's next step while it is under way."""

    before: Tensor | None = None
    after: Tensor | None = None
    threshold: Tensor | float | None = None
    skipped: bool = False
    found_inf: Tensor | None = None
    """A fused optimizer is told by the scaler, on the device, that its step is dropped."""
    in_step: bool = False
    evaluations: int = 0
    """How often the optimizer has called its closure; the first time, the weights are those that the step starts from."""
    amp_scale: Tensor | None = None
    weights: Tensor | None = None
    marks: list[tuple[int, int]] = field(default_factory=list)
    """The gradients before a ``backward`` that may add to them after they were clipped."""


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
        self._open: dict[int, OpenStep] = {}
        self._clipping: list[Stream] = []
        self._log = StepLog(CallSites())
        self._resets, self._missing_steps = GradientResets(), MissingSteps()
        for optimizer in self.only:
            self._missing_steps.made(optimizer, self._streams.number(optimizer))
        self.manual = ManualLoop(self._streams.by_hand, self._finish_manual, self._streams.is_owned)
        self.backwards = 0

    # What the script calls -------------------------------------------------------------------------------------------

    def optimizer_made(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer exists, so updates are its business."""
        if not self.only:
            self._missing_steps.made(optimizer, self._streams.number(optimizer))
            self.manual.search_again()

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
        self._log.backward(tensor, counts=not any(opened.evaluations > 1 for opened in self._open.values()))
        for stream in self._clipped_outside():
            self._open[stream.number].marks = stream.marks()

    def after_backward(self) -> None:
        """``backward`` has run; what it added to was clipped too early, so that clipping says nothing of the next step."""
        self._resets.after_backward()
        self._missing_steps.after_backward()
        self.manual.after_backward()
        if self.manual.under_way:
            self._sample(self.manual.stream)
        for stream in self._clipped_outside():
            opened = self._open[stream.number]
            if opened.marks != stream.marks():
                opened.before = opened.after = opened.threshold = None

    def before_clip(self, parameters: Sequence[Tensor]) -> None:
        """Gradients are about to be clipped."""
        self._clipping = self._streams.holding(parameters)
        self._resets.before_clip(self._clipping)
        for stream in self._clipping:
            opened = self._opened(stream)
            if opened.before is None:
                opened.before = stream.grad_norms()

    def after_clip(
        self,
        parameters: Sequence[Tensor],
        function: str,
        threshold: Tensor | float | None,
        norm: float | None = None,
        result: ClipResult | None = None,
    ) -> None:
        """Gradients were clipped: by which function, to which threshold in which norm, and what this library says of it."""
        if self._clipping or not self.only:  # else it is another model's
            limit = threshold if isinstance(threshold, float) else None
            clip = Event("clip", function=function, norm=norm, threshold=limit)
            self._log.clip(self._clipping, parameters, clip)
        self._resets.after_clip(self._clipping)
        for stream in self._clipping:
            opened = self._opened(stream)
            if opened.evaluations > 1:
                continue
            opened.threshold = threshold
            opened.skipped = result is not None and result.skipped
            if opened.in_step or (stream is self.manual.stream and self.manual.under_way):
                opened.after = norms_at_step(stream.grad_norms(), stream.optimizer)
        if self.manual.under_way:
            self.manual.mark()

    def before_step(self, optimizer: torch.optim.Optimizer, closure: bool) -> None:
        """``optimizer.step()`` begins; other hooks of the step may still clip."""
        stream = self._streams.of(optimizer, current=True)
        if stream is None:
            return
        if not closure and self._resets.is_stale(stream):  # a closure resets them later
            self._log.event(Event("stale", stream.number))
        self._log.event(Event("step", stream.number))
        opened = self._opened(stream)
        if opened.in_step:  # an exception ended the last step, and the script went on
            opened = self._open[stream.number] = OpenStep()
        opened.in_step = True
        if not closure:
            self._measure_step(stream, opened, optimizer)
        self._sample(stream)

    def before_evaluation(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer calls its closure."""
        stream = self._streams.of(optimizer)
        if stream is not None:
            self._opened(stream).evaluations += 1

    def after_evaluation(self, optimizer: torch.optim.Optimizer) -> None:
        """The closure has returned, and other hooks of the step may still clip."""
        stream = self._streams.of(optimizer)
        if stream is None:
            return
        opened = self._opened(stream)
        if opened.before is None:
            opened.before = stream.grad_norms()
        elif opened.evaluations == 1:
            opened.after = stream.grad_norms()

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """``optimizer.step()`` has returned."""
        self._missing_steps.step()
        stream = self._streams.of(optimizer)
        if stream is not None:
            self._finish(stream)

    def zero_grad(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """``zero_grad()`` of an optimizer, or of a module, was called."""
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
        opened = self._open.get(stream.number)
        if opened is not None and opened.before is not None and scale is not None:
            opened.before = divide_by_scale(opened.before, scale)

    def before_scaler_step(self, optimizer: torch.optim.Optimizer, scale: Tensor | None) -> int:
        """A GradScaler is about to step; return the count of steps, by which a dropped one is told."""
        stream = self._streams.of(optimizer)
        if stream is None:
            return -1
        self._opened(stream).amp_scale = None if scale is None else scale.detach().clone()
        return stream.step

    def after_scaler_step(self, optimizer: torch.optim.Optimizer, count: int) -> None:
        """A GradScaler's step has returned; without a step of the optimizer it found an Inf and dropped it."""
        stream = self._streams.of(optimizer)
        if stream is not None and stream.step == count:
            self._opened(stream).skipped = True
            self._log.event(Event("step", stream.number, detail="dropped by the GradScaler"))
            self._finish(stream)

    def close(self, status: str = "finished", exit_code: int | None = None) -> None:
        """The script ends."""
        try:
            self.manual.close()
            self.recorder.note(**self._missing_steps.meta())
        finally:
            self.recorder.close(status, exit_code)

    # How it is put together ------------------------------------------------------------------------------------------

    def _clipped_outside(self) -> list[Stream]:
        """The streams whose gradients were clipped since their last step, and not by the step itself."""
        numbers = {n for n, opened in self._open.items() if opened.before is not None and not opened.in_step}
        return [stream for stream in self._streams.all() if stream.number in numbers] if numbers else []

    def _opened(self, stream: Stream) -> OpenStep:
        return self._open.setdefault(stream.number, OpenStep())

    def _sample(self, stream: Stream | None) -> None:
        """Keep the weights, now and then, to see how far the step moves them."""
        if stream is None or stream.step % (UPDATE_EVERY * self.every):
            return
        opened = self._opened(stream)
        if opened.weights is None:
            opened.weights = stream.weight_norms()
            stream.before_update()

    def _measure_step(self, stream: Stream, opened: OpenStep, optimizer: torch.optim.Optimizer) -> None:
        norms = norms_at_step(stream.grad_norms(), optimizer)
        opened.before = None if opened.before is None else norms_at_step(opened.before, optimizer)
        opened.found_inf = getattr(optimizer, "found_inf", None)
        if opened.before is None:
            opened.before = norms
        else:
            opened.after = norms

    def _finish_manual(self, stream: Stream, before: Tensor) -> None:
        opened = self._opened(stream)
        if opened.before is None:
            opened.before = before
        self._finish(stream)

    def _finish(self, stream: Stream) -> None:
        """Close a step: hand what was measured to the recorder."""
        opened = self._open.pop(stream.number, None) or OpenStep()
        before = stream.grad_norms() if opened.before is None else opened.before
        skipped = opened.skipped if isinstance(opened.skipped, Tensor) else opened.skipped or opened.found_inf
        self.recorder.add(
            Measured(
                stream, stream.step, before, opened.after, list(self._log.take_losses()), opened.threshold,
                stream.learning_rates(), opened.amp_scale, False if skipped is None else skipped, opened.weights,
                stream.update_norms(), stream.step % self.every == 0, self._log.take_events(),
            )
        )  # fmt: skip
        stream.step += 1
        self._resets.finished(stream)
        self._missing_steps.stepped(stream)
