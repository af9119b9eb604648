"""The clipping is given tensors that are no parameters, so it finds no gradients and changes nothing.

Why it is bad:
    ``clip_grad_norm_`` looks for the ``.grad`` of what it is given. A gradient has none of its own, neither has ``p.data`` or a
    value of a ``state_dict()``: the call returns a norm of 0, raises nothing, and every step is unclipped.

How it is detected:
    In at least half of the steps every clipping was given nothing but tensors that are neither parameters nor ask for a
    gradient.

Wrong:
    grads = [p.grad for p in model.parameters()]
    torch.nn.utils.clip_grad_norm_(grads, 1.0)
    optimizer.step()

Right:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

References:
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grads_with_norm_.html
"""

from __future__ import annotations

from collections.abc import Iterator

from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import percent
from gradclip.diagnosis.readings.event_order import Order
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.clip_events import clips_of, conclusive_orders
from gradclip.diagnosis.signals.step_share import cached_by_events, share_of_steps
from gradclip.runs import NOT_PARAMETERS

FIX = """\
torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)  # the parameters, not their gradients
# or, for gradients that are in no parameter, a new list of clipped ones:
clipped = gradclip.clip(gradients, "global_norm:1.0")"""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect clippings of what has no gradients."""
    orders = conclusive_orders(run, optimizer)
    is_idle = cached_by_events(_is_idle)
    evidence = share_of_steps("share of steps at which clipping was given no parameter", orders, is_idle)
    if evidence is None:
        return
    first = next(order for order in orders if is_idle(order))
    sentence = (
        f"The clipping is given tensors that are no parameters, at {percent(evidence.value)} of steps: nothing is clipped."
    )
    yield Symptom("error", sentence, (evidence,), FIX, "certain", clips_of(first)[0].place)


def _is_idle(order: Order) -> bool:
    clips = clips_of(order)
    return bool(clips) and all(clip.detail == NOT_PARAMETERS for clip in clips)
