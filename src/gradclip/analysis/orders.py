"""In which order things happened before each step of one optimizer, also where several optimizers take turns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gradclip.analysis.gathered import Gathered
from gradclip.record import Event

__all__ = ["Order", "orders_of", "place_of"]

DROPPED = "dropped by the GradScaler"


@dataclass(frozen=True)
class Order:
    """What happened up to one step of an optimizer, since its step before."""

    step: int
    events: tuple[Event, ...]
    number: int = 0
    """The optimizer's; the events of others stand between its own."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its own events: of ``clip`` and ``step`` those of this optimizer alone."""
        return tuple(event.kind for event in self.own)

    @property
    def own(self) -> tuple[Event, ...]:
        """The events without the clippings and steps of other optimizers."""
        return tuple(event for event in self.events if event.kind not in ("clip", "step") or self._is_own(event))

    @property
    def clips(self) -> tuple[Event, ...]:
        """Its own clippings."""
        return tuple(event for event in self.own if event.kind == "clip")

    def _is_own(self, event: Event) -> bool:
        return self.number in _numbers(event) or event.detail == DROPPED


def orders_of(run: Gathered, number: int = 0) -> list[Order]:
    """Return what led to each step of an optimizer.

    The file keeps the events of the steps with one number together. With several optimizers these are in the order in which
    they happened only if all optimizers step equally often; otherwise an order here goes back to the step before of *any* of them.

    >>> from gradclip.record import Event
    >>> class run:  # what is read of a run
    ...     optimizers, events = [], [(0, (Event("backward"), Event("step")))]
    >>> orders_of(run)
    [Order(step=0, events=(Event(kind='backward', detail=''), Event(kind='step', detail='')), number=0)]
    """
    if len(run.optimizers) <= 1:
        return [Order(step, events, number) for step, events in run.events]
    together = len({len(optimizer.steps) for optimizer in run.optimizers}) == 1
    orders, waiting = [], list[Event]()
    for step, events in run.events:
        for event in events:
            waiting.append(event)
            if event.kind != "step":
                continue
            own = number in _numbers(event)
            if own:
                orders.append(Order(step, tuple(waiting), number))
            if own or not together:
                waiting = []
    return orders


def place_of(run: Gathered, kind: str, details: Sequence[str] = ("",)) -> str:
    """Return where in the script something was called, ``train.py:31``; nothing where that is not known."""
    places = run.meta.get("places")
    if not isinstance(places, dict):
        return ""
    found = (places.get(f"{kind} {detail}".strip()) for detail in details)
    return next((str(place) for place in found if place), "")


def _numbers(event: Event) -> set[int]:
    """The optimizers an event is about; without a number it is the first."""
    found = re.search(r"\boptimizers? ([\d, ]*\d)", event.detail)
    return {int(number) for number in re.findall(r"\d+", found[1])} if found else {0}
