"""What the script has done since the last step: the losses it called backward on, and the order of events."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from gradclip.runs.schema import Event
from gradclip.watch.observe.call_sites import CallSites
from gradclip.watch.record.stream import Stream

__all__ = ["StepLog"]

MOST_LOSSES: Final = 64
"""More than so many micro-batches are added up as they come."""
MOST_EVENTS: Final = 512
"""A loop that never steps must not fill the memory."""

FORWARD, BACKWARD = Event("forward"), Event("backward")


class StepLog:
    """Losses and events, gathered until a step takes them.

    Args:
        places: gives each event its place, as it happens.
    """

    def __init__(self, places: CallSites) -> None:
        self._places = places
        self._losses: list[Tensor] = []
        self._taken = False
        self._events: list[Event] = []
        self._scaled: tuple[weakref.ref[Tensor], Tensor] | None = None

    def event(self, event: Event, sequence: int | None = None) -> None:
        """Something happened."""
        placed = self._places.placed(event)
        if len(self._events) < MOST_EVENTS:
            self._events.append(placed if sequence is None else placed._replace(sequence=sequence))
        elif self._events[-1].kind != "cut":
            self._events.append(Event("cut"))

    def clip(self, streams: Sequence[Stream], parameters: Sequence[Tensor], clip: Event) -> None:
        """Parameters were clipped by one call, which is an event of each stream that has any of them."""
        if not streams:
            self.event(clip._replace(reached=len(parameters), owned=0))
            return
        sequence = len(self._events) if len(streams) > 1 else None
        for stream in sorted(streams, key=lambda one: one.number):
            reached, owned = stream.share_of(parameters), len(stream)
            self.event(clip._replace(optimizer=stream.number, reached=reached, owned=owned), sequence)

    def scaled(self, loss: Tensor, result: Any) -> None:
        """A GradScaler scaled a loss; the loss that counts is the one before."""
        if isinstance(result, Tensor) and isinstance(loss, Tensor):
            self._scaled = (weakref.ref(result), loss.detach())

    def backward(self, tensor: Tensor, counts: bool = True) -> None:
        """``backward`` runs on a tensor; the first one after a step begins the next step's losses."""
        self.event(FORWARD)
        self.event(BACKWARD)
        if not counts:
            return
        if self._taken:
            self._losses, self._taken = [], False
        loss = self._scaled[1] if self._scaled is not None and self._scaled[0]() is tensor else tensor.detach()
        placements = getattr(loss, "placements", ())
        if loss.numel() == 1 and all(placement.is_replicate() for placement in placements):  # other ranks are not asked
            self._losses.append(getattr(loss, "_local_tensor", loss))
        if len(self._losses) > MOST_LOSSES:
            self._losses = [torch.stack([loss.reshape(()) for loss in self._losses]).sum()]

    def take_events(self) -> list[Event]:
        """Return the events; the next step begins with none."""
        events, self._events = self._events, []
        return events

    def take_losses(self) -> list[Tensor]:
        """Return the losses; optimizers that step one after the other share them, until the next ``backward``."""
        self._taken = True
        return self._losses
