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
        self._losses: list[tuple[int, Tensor]] = []
        """Each with its number; a sum of several has that of the last."""
        self._gathered = 0
        """How many losses there were so far."""
        self._dropped = 0
        """How many there were when gradients were last reset without a step."""
        self._taken = False
        self._events: list[Event] = []
        self._scaled: tuple[weakref.ref[Tensor], Tensor] | None = None

    @property
    def gathering(self) -> bool:
        """Whether there are losses that no step has taken yet."""
        return bool(self._losses) and not self._taken

    def event(self, event: Event, sequence: int | None = None) -> None:
        """Something happened."""
        placed = self._places.placed(event)
        if len(self._events) < MOST_EVENTS:
            self._events.append(placed if sequence is None else placed._replace(sequence=sequence))
        elif self._events[-1].kind != "cut":
            self._events.append(Event("cut"))

    def clip(self, streams: Sequence[Stream], parameters: Sequence[Tensor], clip: Event) -> None:
        """Parameters of these streams were clipped by one call, which is an event of each."""
        sequence = len(self._events) if len(streams) > 1 else None
        for stream in streams:
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
            self._gathered += 1
            self._losses.append((self._gathered, getattr(loss, "_local_tensor", loss)))
        if len(self._losses) > MOST_LOSSES:
            parts = ([one for one in self._losses if (one[0] > self._dropped) is later] for later in (False, True))
            self._losses = [(part[-1][0], torch.stack([loss.reshape(()) for _, loss in part]).sum()) for part in parts if part]

    def drop_losses_of(self, stream: Stream) -> None:
        """The gradients of the losses so far were reset: this stream's next step has nothing of them."""
        stream.dropped_losses = self._dropped = self._gathered

    def replace(self, event: Event, by: Event) -> None:
        """An event was another one than it seemed to be."""
        for place in reversed(range(len(self._events))):
            known = self._events[place]
            if known._replace(place="", threshold=event.threshold) == event._replace(place=""):
                self._events[place] = by._replace(place=known.place)
                return

    def take_events(self) -> list[Event]:
        """Return the events; the next step begins with none."""
        events, self._events = self._events, []
        return events

    def give_back(self, events: Sequence[Event], number: int) -> None:
        """What seemed to lead to a step of this number did not; what was clipped for it was nobody's."""
        known = [*events, *self._events][:MOST_EVENTS]
        self._events = [e._replace(optimizer=None, owned=0) if e.optimizer == number and e.kind == "clip" else e for e in known]

    def take_losses(self, stream: Stream) -> list[Tensor]:
        """Return the losses; optimizers that step one after the other share them, until the next ``backward``."""
        self._taken = True
        return [loss for number, loss in self._losses if number > stream.dropped_losses]
