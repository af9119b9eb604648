"""What the clippings of a step reached: which of them count, and how many tensors at least and at most."""

from __future__ import annotations

import math
from itertools import takewhile

import numpy as np

from gradclip.diagnosis.readings.event_order import Order, orders_of
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.readings.weak_cache import weakly_cached
from gradclip.runs import Event

__all__ = [
    "clips_by_backward",
    "clips_after_backward",
    "clips_before_backward",
    "clips_of",
    "conclusive_orders",
    "gradients_present",
    "tensors_reached",
    "value_at",
]


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


def tensors_reached(clip: Event) -> int:
    """Return how many of its optimizer's tensors a clipping reached, at least: an old run file may not say."""
    return clip.reached or 0 if clip.optimizer is not None else 0


def gradients_present(optimizer: OptimizerRun) -> dict[int, int]:
    """Return how many tensors had a gradient, by step (at least so many, where layers are several tensors)."""
    layers = optimizer.layers
    return dict(zip(layers.steps.tolist(), (~layers.missing).sum(axis=1).tolist(), strict=True))


def _clips(event: Event) -> bool:
    """Whether it may change something: a clipping to an infinite norm measures, no more."""
    return event.kind == "clip" and event.threshold != math.inf
