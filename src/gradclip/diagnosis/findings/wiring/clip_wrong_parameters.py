"""What is clipped is not what is trained: other tensors, or a part of them.

Why it is bad:
    Tensors that are left out reach the optimizer unclipped, so one large gradient there still throws the weights away. If none
    of the tensors is trained (a second model, a copy, the parameters before they were exchanged), nothing is clipped at all.

How it is detected:
    In at least half of the steps no clipping reached a tensor of any optimizer; or fewer tensors were clipped, by all calls of
    the step together, than had gradients. Clipping a part can be meant, so that is told with less confidence.

Wrong:
    torch.nn.utils.clip_grad_norm_(model.head.parameters(), 1.0)  # the body is trained, too
    optimizer.step()

Right:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

References:
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html
"""

from __future__ import annotations

from collections.abc import Iterator

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import percent
from gradclip.diagnosis.readings.event_order import Order, calls_of
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.clip_events import clips_of, conclusive_orders, gradients_present, tensors_reached
from gradclip.diagnosis.signals.step_share import cached_by_events, share_of_steps
from gradclip.runs import NOT_PARAMETERS, Event

FIX = """\
parameters = [p for group in optimizer.param_groups for p in group["params"]]
torch.nn.utils.clip_grad_norm_(parameters, max_norm)
# or, once before the loop, which clips what the optimizer steps:
gradclip.attach(optimizer, "global_norm:1.0")"""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect tensors that are trained and not clipped."""
    orders = conclusive_orders(run, optimizer)
    none = share_of_steps("share of steps at which no trained tensor was clipped", orders, cached_by_events(_reaches_none))
    if none is not None:
        first = next(clip for order in orders for clip in clips_of(order) if _is_untrained(clip))
        sentence = f"The clipping reaches no tensor that is trained, at {percent(none.value)} of steps: nothing is clipped."
        yield Symptom("error", sentence, (none,), FIX, "likely", first.place)
        return
    yield from _part(optimizer, orders)


def _part(optimizer: OptimizerRun, orders: list[Order]) -> Iterator[Symptom]:
    there = gradients_present(optimizer)
    counted = [order for order in orders if order.step in there]
    most = cached_by_events(lambda order: _most(order, optimizer))
    missed = [order for order in counted if 0 < most(order) < there[order.step]]
    at = {order.step for order in missed}
    share = share_of_steps("share of steps clipped in part", counted, lambda order: order.step in at)
    if share is None:
        return
    reached, of = _most(missed[0], optimizer), there[missed[0].step]
    sentence = f"At most {reached} of {of} tensors with gradients are clipped, at {percent(share.value)} of steps."
    evidence = (share, Evidence("tensors clipped", reached, of, missed[0].step))
    yield Symptom("warning", sentence, evidence, FIX, "possible", clips_of(missed[0])[0].place)


def _reaches_none(order: Order) -> bool:
    """Whether all that was clipped is nobody's."""
    clips = clips_of(order)
    return bool(clips) and all(map(_is_untrained, clips))


def _is_untrained(clip: Event) -> bool:
    return clip.optimizer is None and clip.reached != 0 and clip.detail != NOT_PARAMETERS


def _most(order: Order, optimizer: OptimizerRun) -> int:
    """How many tensors all clippings of a step reached, if none twice; one of several optimizers may mean to leave some out."""
    shared = {clip for call in calls_of(order.events) if len(call) > 1 for clip in call}
    return sum(optimizer.tensors if clip in shared else tensors_reached(clip) for clip in clips_of(order))
