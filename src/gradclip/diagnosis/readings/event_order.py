"""In which order things happened before each step of one optimizer, also where several optimizers take turns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Final

from gradclip._cached import cached_property
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.readings.weak_cache import weakly_cached
from gradclip.runs import Event

__all__ = ["Order", "call_site_of", "calls_of", "clipping_known", "orders_of"]

OWNED: Final = ("clip", "step", "stale", "unscale", "unused")
"""Kinds of events that are about one optimizer; what else happens may be about all."""


@dataclass(frozen=True)
class Order:
    """What happened up to one step of an optimizer, since its step before.

    All of it came before the weights changed: what stands behind the event ``step`` happened inside of ``step()``, in a hook or
    in a closure.
    """

    step: int
    events: tuple[Event, ...]
    number: int = 0
    """The optimizer's; the events of others stand between its own."""
    begin: int = 0
    """Where the events begin that came after the last step of *any* optimizer."""

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its own events: of clippings and steps those of this optimizer alone."""
        return tuple(event.kind for event in self.own)

    @cached_property
    def own(self) -> tuple[Event, ...]:
        """The events without the clippings and steps of other optimizers."""
        return tuple(e for i, e in enumerate(self.events) if e.kind not in OWNED or self._is_own(e, i))

    @property
    def clips(self) -> tuple[Event, ...]:
        """Its own clippings; those of no optimizer's tensors are its own where it was the next to step."""
        return tuple(event for event in self.own if event.kind == "clip")

    @property
    def complete(self) -> bool:
        """Whether all that happened is there."""
        return "cut" not in self.kinds

    @property
    def resets_last(self) -> bool:
        """Whether ``zero_grad`` is the later one of the last two: it, and ``backward``."""
        decisive = [kind for kind in self.kinds if kind in ("zero_grad", "backward")]
        return "backward" in decisive and decisive[-1] == "zero_grad"

    def _is_own(self, event: Event, place: int) -> bool:
        return place >= self.begin if event.optimizer is None else event.optimizer == self.number


@weakly_cached
def orders_of(run: RunData, number: int = 0) -> list[Order]:
    """Return what led to each step of an optimizer.

    >>> from gradclip.runs import Event
    >>> class run:  # what is read of a run: step, optimizer, events
    ...     events = [(0, 1, (Event("backward"), Event("step", 1))), (0, 0, (Event("step", 0),))]
    >>> [(order.kinds, order.begin) for order in orders_of(run)]
    [(('backward', 'step'), 2)]
    """
    orders, waiting = [], list[tuple[Event, ...]]()
    for step, owner, events in run.events:
        waiting.append(events)
        if owner == number:
            begin = sum(map(len, waiting[:-1]))
            orders.append(Order(step, tuple(chain(*waiting)) if begin else events, number, begin))
            waiting = []
    return orders


def calls_of(events: Iterable[Event]) -> list[tuple[Event, ...]]:
    """Return the events call by call: one call that clips the tensors of several optimizers is an event of each."""
    calls: list[tuple[Event, ...]] = []
    for event in events:
        together = calls and event.kind == calls[-1][0].kind == "clip" and event.sequence == calls[-1][0].sequence is not None
        if together:
            calls[-1] += (event,)
        else:
            calls.append((event,))
    return calls


def call_site_of(run: RunData, optimizer: OptimizerRun, kind: str) -> str:
    """Return where in the script something was called first, ``train.py:31``; nothing where that is not known."""
    found = (event.place for order in orders_of(run, optimizer.number) for event in order.own if event.kind == kind)
    return next(filter(None, found), "")


def clipping_known(optimizer: OptimizerRun, step: int) -> bool:
    """Return whether a clipping saw the gradients that a step used; one that is called too early or too late does not."""
    at = optimizer.steps.step.searchsorted(step)
    there = at < len(optimizer.steps) and optimizer.steps.step[at] == step
    return bool(there and not optimizer.steps.missing["clipped"][at])
