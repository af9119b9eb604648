"""The same gradients are clipped twice before one step.

Why it is bad:
    The second clipping sees what the first has left, so the norm that it returns, and that is logged, is not the gradients',
    and of two thresholds the smaller decides, wherever it stands in the code. A clipping by value after one by norm changes
    the direction that the first kept. Often one of them is a framework's and the other a line that was forgotten.

How it is detected:
    In at least half of the steps, with no ``backward()`` and no reset in between, the clippings after the last ``backward()``
    reached more tensors than the optimizer has, so some were clipped twice. (Calls for single tensors or groups that add up to
    all of them are one clipping.) It is a warning where the same function ran twice and the numbers say that the last
    threshold was not the one that decided; else a note: a call with an infinite threshold, to measure the norm, looks the same.

Wrong:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

Right:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

References:
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_value_.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from gradclip.diagnosis.event_text import function_text
from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Confidence, Symptom
from gradclip.diagnosis.formatting import number, percent
from gradclip.diagnosis.readings.event_order import Order
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.clip_events import (
    clips_after_backward,
    conclusive_orders,
    tensors_reached,
    value_at,
)
from gradclip.diagnosis.signals.step_share import cached_by_events, share_of_steps

TIGHTER: Final = 0.999
"""A norm below this share of its threshold was held there by another one: a clipping leaves the threshold to 6 digits."""

FIX = """\
torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)  # one of them is enough
optimizer.step()
# two that are both meant are one recipe, which the run names as such:
gradclip.attach(optimizer, gradclip.Chain("value:1.0", "global_norm:1.0"))"""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect tensors that are clipped more than once."""
    orders = conclusive_orders(run, optimizer)
    is_twice = cached_by_events(lambda order: _is_twice(order, optimizer))
    twice = [order for order in orders if is_twice(order)]
    share = share_of_steps("share of steps clipped twice", orders, is_twice)
    if share is None:
        return
    functions = list(dict.fromkeys(function_text(clip) for clip in clips_after_backward(twice[0])))
    called = f"twice by {functions[0]}" if len(functions) == 1 else f"by {' and '.join(functions)}"
    sentence = f"The same gradients are clipped {called} before one step, at {percent(share.value)} of steps"
    comparable = len(functions) == 1 and clips_after_backward(twice[0])[0].norm in (None, 2.0)  # what is recorded are 2-norms
    tighter = _tighter(optimizer, twice) if comparable else None
    place = clips_after_backward(twice[0])[0].place
    if tighter is None:
        sure: Confidence = (
            "certain" if len(functions) > 1 else "possible"
        )  # the first may have an infinite threshold, to measure the norm
        yield Symptom("note", f"{sentence}.", (share,), FIX, sure, place)
        return
    sentence += f": they reach the step at {number(tighter.value)}, below the last threshold of {number(tighter.limit or 0.0)}."
    yield Symptom("warning", sentence, (share, tighter), FIX, "certain", place)


def _is_twice(order: Order, optimizer: OptimizerRun) -> bool:
    return sum(map(tensors_reached, clips_after_backward(order))) > optimizer.tensors > 0


def _tighter(optimizer: OptimizerRun, orders: Sequence[Order]) -> Evidence | None:
    """The norm at a step that was clipped to less than its last threshold, where most steps that were clipped are like that."""
    names = ("norm", "clipped_norm", "threshold")
    rows = [(order.step, [value_at(optimizer, name, order.step) for name in names]) for order in orders]
    clipped = [(step, after, limit) for step, (norm, after, limit) in rows if 0 < after < TIGHTER * norm]
    held = [(step, after, limit) for step, after, limit in clipped if after < TIGHTER * limit]
    if not held or 2 * len(held) < len(clipped):
        return None
    step, after, limit = held[0]
    return Evidence("gradient norm after both", after, limit, step)
