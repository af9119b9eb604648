"""Gradients are clipped after the optimizer has used them, so the clipping does nothing.

Why it is bad:
    ``optimizer.step()`` has read the unclipped gradients when the clipping runs, and ``zero_grad`` throws the clipped ones
    away. The run is one without clipping, while its code and its logs say otherwise.

How it is told:
    In at least half of the steps a clipping ran after the step and before the next ``backward()``, and none ran between the
    last ``backward()`` and the step. This follows from the order of the calls, not from numbers.

Wrong:
    loss.backward()
    optimizer.step()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)

Right:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

References:
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html
    - Pascanu, Mikolov, Bengio 2013, Algorithm 1, https://arxiv.org/abs/1211.5063
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

from gradclip.analysis.gathered import Gathered, Optimizer
from gradclip.analysis.orders import Order, orders_of, place_of
from gradclip.analysis.words import percent
from gradclip.checks.finding import Symptom
from gradclip.checks.repeated import repeated

FIX = """\
loss.backward()
torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)  # between backward and step
optimizer.step()
# or, with no order left to get wrong, once before the loop:
gradclip.attach(optimizer, "global_norm:1.0")"""


def look(run: Gathered, optimizer: Optimizer) -> Iterator[Symptom]:
    """Tell clippings that come too late for the step."""
    orders = orders_of(run, optimizer.number)
    late = [order for order in orders if _too_late(order)]
    evidence = repeated("share of steps clipped only after the step", orders, _too_late)
    if evidence is None:
        return
    sentence = f"Gradients are clipped after optimizer.step() at {percent(evidence.value)} of steps: no step was clipped by it."
    clip = next(event for event in late[0].clips)
    yield Symptom("error", sentence, (evidence,), FIX, "certain", place_of(run, "clip", [clip.detail]))


def _too_late(order: Order) -> bool:
    before = list(takewhile(lambda kind: kind != "backward", order.kinds))
    after = order.kinds[len(before) :]
    return "clip" in before and "backward" in after and "clip" not in after
