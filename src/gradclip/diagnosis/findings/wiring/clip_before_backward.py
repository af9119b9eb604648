"""Gradients are clipped before ``backward()`` has computed them, or before the last ``backward()`` that adds to them.

Why it is bad:
    What ``backward()`` adds after the clipping reaches the optimizer as it is. Before the first ``backward()`` there are no
    gradients at all, or those of the step before, so nothing that is used is clipped.

How it is detected:
    In at least half of the steps every clipping ran before the first ``backward()``, the very first step included; or all
    tensors were clipped after one ``backward()``, and a later one of the same step added to them. This follows from the order
    of the calls.

Wrong:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    loss.backward()
    optimizer.step()

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

from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import percent
from gradclip.diagnosis.readings.event_order import Order, clipping_known
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.clip_events import clips_before_backward, clips_by_backward, conclusive_orders, tensors_reached
from gradclip.diagnosis.signals.step_share import share_of_steps
from gradclip.runs import Event

FIX = """\
loss.backward()  # the last one of the step
torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
optimizer.step()
# or, with no order left to get wrong, once before the loop:
gradclip.attach(optimizer, "global_norm:1.0")"""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect clippings that come too early for the step."""
    orders = conclusive_orders(run, optimizer)
    yield from _before_all(orders)
    yield from _between(optimizer, orders)


def _before_all(orders: list[Order]) -> Iterator[Symptom]:
    if not orders or not clips_before_backward(orders[0]):
        return
    evidence = share_of_steps(
        "share of steps clipped before backward()", orders, lambda order: bool(clips_before_backward(order))
    )
    if evidence is None:
        return
    sentence = f"Gradients are clipped before backward() computes them at {percent(evidence.value)} of steps: none is clipped."
    yield Symptom("error", sentence, (evidence,), FIX, "certain", clips_before_backward(orders[0])[0].place)


def _between(optimizer: OptimizerRun, orders: list[Order]) -> Iterator[Symptom]:
    early = [clip for order in orders for clip in _too_early(order, optimizer)]
    what = "share of steps in which backward() added to clipped gradients"
    evidence = share_of_steps(what, orders, lambda order: bool(_too_early(order, optimizer)))
    if evidence is None:
        return
    sentence = (
        f"At {percent(evidence.value)} of steps backward() adds to gradients after they were clipped, and none is clipped then."
    )
    yield Symptom("warning", sentence, (evidence,), FIX, "likely", early[0].place)


def _too_early(order: Order, optimizer: OptimizerRun) -> list[Event]:
    """The clippings of all tensors after which ``backward()`` changed some; one of a part may have left out what it changed."""
    parts = clips_by_backward(order)
    if parts[-1] or clipping_known(optimizer, order.step):
        return []
    return [clip for part in parts[1:-1] for clip in part if tensors_reached(clip) >= optimizer.tensors > 0]
