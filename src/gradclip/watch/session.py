"""Follow a training loop from its own calls: which step is which, what was clipped, in which order things happened."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gradclip.record.schema import Event
from gradclip.result import ClipResult
from gradclip.watch.manual import ManualLoop
from gradclip.watch.recorder import Measured, Recorder
from gradclip.watch.stream import Stream

__all__ = ["Session"]

UPDATE_EVERY = 10
"""How far a step moves the weights needs a copy of them, so it is measured at one step in ten."""


@dataclass
class Open:
    """What is known of a stream's next step while it is under way."""

    before: Tensor | None = None
    after: Tensor | None = None
    threshold: float | None = None
    skipped: bool = False
    closure: bool = False
    amp_scale: Tensor | None = None
    weights: Tensor | None = None


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
    only: Sequence[torch.optim.Optimizer] | None = None
    names: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._streams: weakref.WeakKeyDictionary[torch.optim.Optimizer, Stream] = weakref.WeakKeyDictionary()
        self._open: dict[int, Open] = {}
        self._count = 0
        self._losses: list[Tensor] = []
        self._losses_used = False
        self._events: list[Event] = []
        self._scaled: tuple[int, Tensor] | None = None
        self._in_step: Stream | None = None
        self._optimizers: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet(self.only or ())
        self.manual = ManualLoop(self._new_stream, self._finish_manual)
        self.backwards = 0

    # What the script calls -------------------------------------------------------------------------------------------

    def optimizer_made(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer exists, so updates are its business."""
        if self.only is None:
            self._optimizers.add(optimizer)

    def before_backward(self, tensor: Tensor) -> None:
        """``backward`` is about to run on ``tensor``."""
        self.backwards += 1
        if not self._optimizers:
            self.manual.before_backward(tensor)
        if self._losses_used:
            self._losses, self._losses_used = [], False
        self._losses.append(self._unscaled(tensor).detach())
        self._events += [Event("forward"), Event("backward")]

    def after_backward(self) -> None:
        """``backward`` has run."""
        self.manual.after_backward()

    def before_clip(self, parameters: Sequence[Tensor]) -> None:
        """Gradients are about to be clipped."""
        for stream in self._streams_of(parameters):
            opened = self._opened(stream)
            if opened.before is None:
                opened.before = stream.grad_norms()

    def after_clip(
        self, parameters: Sequence[Tensor], kind: str, threshold: float | None, result: ClipResult | None = None
    ) -> None:
        """Gradients were clipped: by which function, to which threshold, and what this library says of it."""
        self._events.append(Event("clip", kind))
        for stream in self._streams_of(parameters):
            opened = self._opened(stream)
            opened.threshold = threshold
            opened.skipped = result is not None and result.skipped
            if stream is self._in_step or stream is self.manual.stream:
                opened.after = stream.grad_norms()

    def before_step(self, optimizer: torch.optim.Optimizer, closure: bool) -> None:
        """``optimizer.step()`` begins; other hooks of the step may still clip."""
        stream = self._stream(optimizer)
        if stream is None:
            return
        self._in_step = stream
        self._events.append(Event("step", f"optimizer {stream.number}" if stream.number else ""))
        opened = self._opened(stream)
        opened.closure = closure
        if not closure:
            norms = stream.grad_norms()
            scale = getattr(optimizer, "grad_scale", None)
            if isinstance(scale, Tensor):  # a fused optimizer unscales inside its kernel
                norms = torch.where(norms >= 0, norms / scale.to(norms), norms)
            if opened.before is None:
                opened.before = norms
            else:
                opened.after = norms
        if self._is_sampled(stream):
            opened.weights = stream.weight_norms()
            stream.before_update()

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """``optimizer.step()`` has returned."""
        stream = self._stream(optimizer)
        if stream is None:
            return
        self._in_step = None
        opened = self._opened(stream)
        if opened.closure:
            norms = stream.grad_norms()
            opened.before, opened.after = (norms, None) if opened.before is None else (opened.before, norms)
        self._finish(stream)

    def zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        """``optimizer.zero_grad()`` was called."""
        if self._stream(optimizer) is not None:
            self._events.append(Event("zero_grad"))

    def scaled(self, loss: Tensor, result: Any) -> None:
        """A GradScaler scaled a loss; the loss that is shown is the one before."""
        if isinstance(result, Tensor):
            self._scaled = (id(result), loss)

    def unscaled(self, optimizer: torch.optim.Optimizer) -> None:
        """A GradScaler unscaled an optimizer's gradients."""
        if self._stream(optimizer) is not None:
            self._events.append(Event("unscale"))

    def before_scaler_step(self, optimizer: torch.optim.Optimizer, scale: Tensor | None) -> int:
        """A GradScaler is about to step; return the count of steps, by which a dropped one is told."""
        stream = self._stream(optimizer)
        if stream is None:
            return -1
        self._opened(stream).amp_scale = None if scale is None else scale.detach().clone()
        return stream.step

    def after_scaler_step(self, optimizer: torch.optim.Optimizer, count: int) -> None:
        """A GradScaler's step has returned; without a step of the optimizer it found an Inf and dropped it."""
        stream = self._stream(optimizer)
        if stream is not None and stream.step == count:
            opened = self._opened(stream)
            opened.skipped = True
            if opened.before is None:
                opened.before = stream.grad_norms()
            self._events.append(Event("step", "dropped by the GradScaler"))
            self._finish(stream)

    def close(self, status: str = "finished", exit_code: int | None = None) -> None:
        """The script ends."""
        self.manual.close()
        self.recorder.close(status, exit_code)

    # How it is put together ------------------------------------------------------------------------------------------

    def _stream(self, optimizer: torch.optim.Optimizer) -> Stream | None:
        if self.only is not None and not any(optimizer is one for one in self.only):
            return None
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if optimizer not in self._streams:
            self._streams[optimizer] = self._new_stream(parameters, optimizer)
        stream = self._streams[optimizer]
        if len(stream) != len(parameters):
            stream.adopt(parameters)
        return stream

    def _new_stream(self, parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer | None = None) -> Stream:
        stream = Stream(self._count, parameters, optimizer, self.names)
        self._count += 1
        return stream

    def _streams_of(self, parameters: Sequence[Tensor]) -> list[Stream]:
        """The streams that own any of these parameters, those of optimizers that have not stepped yet included."""
        streams = [self._stream(optimizer) for optimizer in list(self._optimizers)]
        return [stream for stream in [*streams, self.manual.stream] if stream is not None and stream.owns(parameters)]

    def _opened(self, stream: Stream) -> Open:
        return self._open.setdefault(stream.number, Open())

    def _unscaled(self, tensor: Tensor) -> Tensor:
        if self._scaled is not None and self._scaled[0] == id(tensor):
            return self._scaled[1]
        return tensor

    def _is_sampled(self, stream: Stream) -> bool:
        return stream.step % (UPDATE_EVERY * self.every) == 0

    def _finish_manual(self, stream: Stream, before: Tensor) -> None:
        opened = self._opened(stream)
        if opened.before is None:
            opened.before = before
        self._finish(stream)

    def _finish(self, stream: Stream) -> None:
        """Close a step: hand what was measured to the recorder."""
        opened = self._open.pop(stream.number, Open())
        assert opened.before is not None
        events, self._events = self._events, []
        losses = [loss for loss in self._losses if loss.numel() == 1]
        self._losses_used = True
        self.recorder.add(
            Measured(
                stream, stream.step, opened.before, opened.after, losses, opened.threshold, stream.learning_rates(),
                opened.amp_scale, opened.skipped, opened.weights, stream.update_norms(), stream.step % self.every == 0, events,
            )
        )  # fmt: skip
        stream.step += 1
