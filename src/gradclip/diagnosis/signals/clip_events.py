"""What the clippings of a step reached: which of them count, and how many tensors at least and at most."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

import numpy as np

from gradclip.diagnosis.readings.event_order import Order, optimizers_of, orders_of
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.readings.weak_cache import weakly_cached
from gradclip.runs import Event

__all__ = [
    "clips_by_backward",
    "clips_after_backward",
    "clips_before_backward",
    "clips_of",
    "clip_function",
    "conclusive_orders",
    "gradients_present",
    "tensors_reached",
    "value_at",
]

PART: Final = re.compile(r"\b(\d+) of (\d+) tensors\)$")
MEASURES: Final = re.compile(r"(?:max_norm=|_norm:)inf\b")
"""A clipping to an infinite norm measures, and changes nothing."""


@weakly_cached
def conclusive_orders(run: RunData, optimizer: OptimizerRun) -> list[Order]:
    """Return the steps whose order says something: all of it is there, and the limit in force was no infinite one."""
    measured = set(optimizer.steps.step[np.isposinf(optimizer.steps.threshold)].tolist())
    return [order for order in orders_of(run, optimizer.number) if order.complete and order.step not in measured]


def clips_of(order: Order) -> list[Event]:
    """Return the own clippings that may change something."""
    return [event for event in order.own if _clips(event)]


def value_at(optimizer: OptimizerRun, column: str, step: int) -> float:
    """Return a number of one step, NaN where it was never measured."""
    at = int(optimizer.steps.step.searchsorted(step))
    there = at < len(optimizer.steps) and optimizer.steps.step[at] == step
    return float(getattr(optimizer.steps, column)[at]) if there else float("nan")


def clips_by_backward(order: Order) -> list[list[Event]]:
    """Return the own clippings since the last ``zero_grad()``: before the first ``backward()``, after it, and so on."""
    parts: list[list[Event]] = [[]]
    for event in order.own:
        if event.kind == "zero_grad":
            parts = [[]]
        elif event.kind == "backward":
            parts.append([])
        elif _clips(event):
            parts[-1].append(event)
    return parts


def clips_after_backward(order: Order) -> list[Event]:
    """Return the own clippings between the last ``backward()`` and the end of the step."""
    return clips_by_backward(order)[-1] if "backward" in order.kinds else []


def clips_before_backward(order: Order) -> list[Event]:
    """Return the own clippings before the first ``backward()`` of a step, where none came after it."""
    if "backward" not in order.kinds:
        return []
    before = list(takewhile(lambda event: event.kind != "backward", order.own))
    after = order.own[len(before) :]
    return [] if any(map(_clips, after)) else [event for event in before if _clips(event)]


def tensors_reached(clip: Event, optimizer: OptimizerRun) -> tuple[int, int]:
    """Return how many of an optimizer's tensors a clipping reached, at least and at most.

    One that took in several optimizers says only how many it reached of all of them together.
    """
    if re.search(r"\(no tensors?\b", clip.detail):
        return 0, 0
    found = PART.search(clip.detail)
    if found is None:
        return optimizer.tensors, optimizer.tensors
    share, total = int(found[1]), int(found[2])
    others = total - optimizer.tensors if len(optimizers_of(clip)) > 1 else 0
    return max(0, share - others), min(share, optimizer.tensors)


def gradients_present(optimizer: OptimizerRun) -> dict[int, int]:
    """Return how many tensors had a gradient, by step (at least so many, where layers are several tensors)."""
    layers = optimizer.layers
    return dict(zip(layers.steps.tolist(), (~layers.missing).sum(axis=1).tolist(), strict=True))


def _clips(event: Event) -> bool:
    return event.kind == "clip" and not MEASURES.search(event.detail)


def clip_function(clips: Sequence[Event]) -> str:
    """Return what was called, without what it reached: ``clip_grad_norm_``."""
    return clips[0].detail.partition(" (")[0] if clips else ""
