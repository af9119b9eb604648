"""Clippings of tensors that no optimizer steps, whose gradients an optimizer's parameters may be given afterwards.

A half-precision model with float32 master weights, or a worker's own net in front of a shared one: ``backward`` and the
clipping know the one copy, the optimizer steps the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from gradclip.runs.schema import NOT_PARAMETERS, Event
from gradclip.watch.record.stream import Stream, grad_norms

__all__ = ["LooseClip", "LooseClips", "loose_event"]

MOST: Final = 16
"""Clippings that are remembered until the next step."""


@dataclass
class LooseClip:
    """One such clipping."""

    event: Event
    threshold: Tensor | float | None
    shapes: list[torch.Size]
    grads: list[int]
    before: Tensor
    after: Tensor
    marks: dict[int, list[tuple[int, int]]]
    """The gradients of each stream when it was done."""

    def event_of(self, stream: Stream) -> Event:
        """Return the event as a clipping of the stream that has stepped what was clipped."""
        number = len(stream)
        return self.event._replace(
            optimizer=stream.number, reached=number, owned=number, detail="of what its gradients were copied from"
        )

    def norms_for(self, stream: Stream) -> Tensor | None:
        """Return the norms before clipping of gradients that are the clipped ones, or a copy that was made of them since.

        None where they are neither: others, or a copy that was made before.
        """
        parameters = [p for p in stream.parameters() if p is not None and p.grad is not None]
        if not parameters or len(parameters) != len(stream):
            return None
        ids = [id(p.grad) for p in parameters]
        if set(ids) <= set(self.grads):
            places = [self.grads.index(one) for one in ids]
            return self.before[places]
        size = sum(p.numel() for p in parameters)
        if self.marks.get(stream.number) == stream.marks() or size != sum(shape.numel() for shape in self.shapes):
            return None
        now, before, after = stream.grad_norms(), self.before, self.after
        if [p.shape for p in parameters] != self.shapes:  # all in one flat tensor
            before, after = before.norm(), after.norm()
        return now * torch.where(after > 0, before / after, 1.0).to(now)  # the copy may be in another unit


class LooseClips:
    """Those since the last step; called by the session."""

    def __init__(self) -> None:
        self._clips: list[LooseClip] = []
        self._before: Tensor | None = None

    def __bool__(self) -> bool:
        return bool(self._clips)

    def begin(self, parameters: Sequence[Tensor]) -> None:
        """Such tensors are about to be clipped."""
        self._before = grad_norms(parameters) if parameters else None

    def end(
        self, parameters: Sequence[Tensor], event: Event, threshold: Tensor | float | None, streams: Iterable[Stream]
    ) -> None:
        """They were; without any gradient it is none that counts."""
        before, self._before = self._before, None
        there = [i for i, p in enumerate(parameters) if p.grad is not None]
        if before is None or not there:
            return
        grads = [grad for i in there if (grad := parameters[i].grad) is not None]
        after = grad_norms([parameters[i] for i in there])
        marks = {stream.number: stream.marks() for stream in streams}
        shapes = [parameters[i].shape for i in there]
        clip = LooseClip(event, threshold, shapes, list(map(id, grads)), before[there], after, marks)
        self._clips = [*self._clips, clip][-MOST:]

    def take(self, stream: Stream) -> tuple[LooseClip, Tensor] | None:
        """A stream steps: return the last clipping that was one of its gradients, and their norms before it."""
        for clip in reversed(self._clips):
            norms = clip.norms_for(stream)
            if norms is not None:
                self._clips = [one for one in self._clips if one is not clip]
                return clip, norms
        return None

    def forget(self) -> None:
        """``zero_grad`` or the next ``backward`` begins anew."""
        self._clips = []


def loose_event(clip: Event, parameters: Sequence[Tensor]) -> Event:
    """Return the event of a clipping of tensors that no optimizer has; what is no parameter has no gradient to be clipped."""
    wrong = bool(parameters) and not any(p.requires_grad or isinstance(p, nn.Parameter) for p in parameters)
    return clip._replace(reached=len(parameters), owned=0, detail=NOT_PARAMETERS if wrong else "")
