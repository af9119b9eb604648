"""In which order things happened before each step of one optimizer, also where several optimizers take turns."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.readings.weak_cache import weakly_cached
from gradclip.runs import Event

__all__ = ["Order", "clipping_known", "optimizers_of", "orders_of", "call_site_of"]

DROPPED: Final = "dropped by the GradScaler"
CUT: Final = Event("warning", "and so on")
"""What stands where more happened in a step than a run file keeps."""
OPTIMIZERS: Final = re.compile(r"\boptimizers? (\d+(?:, \d+(?!\d| of\b))*)")
NOBODY: Final = re.compile(r"\(no tensors?\b")
NUMBERED: Final = ("clip", "step", "stale", "unscale")


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

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its own events: of clippings and steps those of this optimizer alone."""
        return tuple(event.kind for event in self.own)

    @property
    def own(self) -> tuple[Event, ...]:
        """The events without the clippings and steps of other optimizers."""
        return _own(self.events, self.number, self.begin)

    @property
    def clips(self) -> tuple[Event, ...]:
        """Its own clippings; those of no optimizer's tensors are its own where it was the next to step."""
        return tuple(event for event in self.own if event.kind == "clip")

    @property
    def complete(self) -> bool:
        """Whether all that happened is there."""
        return CUT not in self.events


@dataclass(frozen=True)
class _Piece:
    """The events up to one step of some optimizer, since the last step of any."""

    number: int
    step: int
    events: tuple[Event, ...]


@weakly_cached
def orders_of(run: RunData, number: int = 0) -> list[Order]:
    """Return what led to each step of an optimizer.

    The file keeps the events of all steps with one number together; the times of the steps bring them back into the order in
    which they happened. (What several optimizers do in closures seems to belong to the step that follows.)

    >>> from gradclip.runs import Event
    >>> class run:  # what is read of a run
    ...     optimizers, events = [], [(0, (Event("backward"), Event("step")))]
    >>> orders_of(run)
    [Order(step=0, events=(Event(kind='backward', detail=''), Event(kind='step', detail='')), number=0, begin=0)]
    """
    if len(run.optimizers) <= 1:
        return [Order(step, events, number) for step, events in run.events]
    orders, waiting = [], list[Event]()
    for piece in _in_time(run):
        begin = len(waiting)
        waiting += piece.events
        if piece.number == number:
            orders.append(Order(piece.step, tuple(waiting), number, begin))
            waiting = []
    return orders


def call_site_of(run: RunData, kind: str, details: Sequence[str] = ("",)) -> str:
    """Return where in the script something was called, ``train.py:31``; nothing where that is not known."""
    places = run.meta.get("places")
    if not isinstance(places, dict):
        return ""
    found = (places.get(f"{kind} {detail}".strip()) for detail in details)
    return next((str(place) for place in found if place), "")


def optimizers_of(event: Event) -> frozenset[int]:
    """Return the optimizers an event is about; without a number it is the first.

    >>> sorted(optimizers_of(Event("clip", "clip_grad_norm_ (optimizers 1, 12, 13 of 60 tensors)")))
    [1, 12]
    >>> sorted(optimizers_of(Event("step")))
    [0]
    """
    return _numbers(event.detail)


@lru_cache(maxsize=1024)
def _numbers(detail: str) -> frozenset[int]:
    found = OPTIMIZERS.search(detail)
    return frozenset(map(int, found[1].split(", "))) if found else frozenset({0})


@lru_cache(maxsize=1024)  # most steps of a run go alike
def _own(events: tuple[Event, ...], number: int, begin: int) -> tuple[Event, ...]:
    return tuple(event for i, event in enumerate(events) if event.kind not in NUMBERED or _is_own(event, number, i >= begin))


def _is_own(event: Event, number: int, recent: bool) -> bool:
    """Whether an event is about an optimizer; one that names none is if it happened since the last step of any."""
    nameless = event.detail == DROPPED or NOBODY.search(event.detail)
    return recent if nameless else number in optimizers_of(event)


def _in_time(run: RunData) -> list[_Piece]:
    """The pieces of all optimizers, in the order in which they were finished."""
    rows = ((one.number, one.steps.step.tolist(), one.steps.time.tolist()) for one in run.optimizers)
    times = {(number, step): at for number, steps, ats in rows for step, at in zip(steps, ats, strict=True)}
    pieces = [piece for step, events in run.events for piece in _pieces(run, step, events)]
    finished = [times.get((piece.number, piece.step), math.nan) for piece in pieces]
    if any(map(math.isnan, finished)):  # a step whose row is not written yet, or has no time
        return pieces
    return [pieces[i] for i in sorted(range(len(pieces)), key=finished.__getitem__)]


def _pieces(run: RunData, step: int, events: tuple[Event, ...]) -> Iterator[_Piece]:
    """Divide the events of the steps with one number: each ends behind its ``step``, and what is left belongs to the last."""
    ends = [i for i, event in enumerate(events) if event.kind == "step"]
    owners = _owners(run, step, [events[i] for i in ends])
    begin = 0
    for end, following, owner in zip(ends, [*ends[1:], len(events)], owners, strict=True):
        last = following == len(events)
        until = len(events) if last else _inside(_optimizer(run, owner), step, events, begin, end)
        yield _Piece(owner, step, events[begin:until])
        begin = until


def _owners(run: RunData, step: int, steps: Sequence[Event]) -> list[int]:
    """Whose the steps are; one that a GradScaler has dropped does not say, so it is one of the others that are there."""
    named = {number for event in steps if event.detail != DROPPED for number in optimizers_of(event)}
    unnamed = (one.number for one in run.optimizers if one.number not in named and step in one.steps.step)
    return [next(unnamed, -1) if event.detail == DROPPED else min(optimizers_of(event)) for event in steps]


def _inside(optimizer: OptimizerRun | None, step: int, events: Sequence[Event], begin: int, end: int) -> int:
    """Return where a step's events end: a clipping right behind ``step`` ran inside of it if it is known to have acted.

    (That of an attachment does; one that a script calls after the step leaves ``clipped`` unknown.)
    """
    until = end + 1
    if optimizer is None or any(
        event.kind == "clip" and optimizer.number in optimizers_of(event) for event in events[begin:end]
    ):
        return until
    if not clipping_known(optimizer, step):
        return until
    while until < len(events) and events[until].kind == "clip" and optimizer.number in optimizers_of(events[until]):
        until += 1
    return until


def _optimizer(run: RunData, number: int) -> OptimizerRun | None:
    return next((one for one in run.optimizers if one.number == number), None)


def clipping_known(optimizer: OptimizerRun, step: int) -> bool:
    """Return whether a clipping saw the gradients that a step used; one that is called too early or too late does not."""
    at = optimizer.steps.step.searchsorted(step)
    there = at < len(optimizer.steps) and optimizer.steps.step[at] == step
    return bool(there and not optimizer.steps.missing["clipped"][at])
