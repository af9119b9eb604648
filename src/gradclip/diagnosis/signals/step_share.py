"""The share of steps at which something is so: what happens again and again is no accident."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.readings.event_order import Order

__all__ = ["HALF", "cached_by_events", "share_of_steps"]

HALF: Final = 0.5
"""Of the steps; what is written wrongly in a loop shows at nearly all of them, what a script does once in a while does not."""
FEWEST: Final = 2

Judgement = TypeVar("Judgement")


def share_of_steps(
    what: str, orders: Sequence[Order], predicate: Callable[[Order], bool], share: float = HALF
) -> Evidence | None:
    """Return the share of steps at which something is so, with the first of them; None where it is too rare to be a habit.

    Args:
        what: is so, in words: ``share of steps clipped twice``.
        orders: the steps of an optimizer.
        predicate: whether it is so at a step.
        share: the least share.
    """
    steps = [order.step for order in orders if predicate(order)]
    if len(steps) < max(FEWEST, share * len(orders)):
        return None
    return Evidence(what, len(steps) / len(orders), share, steps[0])


def cached_by_events(judge: Callable[[Order], Judgement]) -> Callable[[Order], Judgement]:
    """Judge steps with the same events once: in most runs all steps are alike. The judge looks at nothing but the events."""
    known: dict[Any, Judgement] = {}

    def remembered(order: Order) -> Judgement:
        key = (order.events, order.number, order.begin)
        if key not in known:
            known[key] = judge(order)
        return known[key]

    return remembered
