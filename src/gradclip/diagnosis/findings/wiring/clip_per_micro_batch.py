"""Each micro-batch is clipped while gradients accumulate, instead of their sum once before the step.

Why it is bad:
    The threshold bounds the norm of the sum over all micro-batches. Clipped after each ``backward()``, the first ones are
    shrunk again and again while the last counts in full, so the step leans towards the last micro-batch, and the direction of
    the sum is lost. Without accumulation the same settings train differently.

How it is detected:
    In at least half of the steps, between two resets of the gradients, the same tensors were clipped after more than one
    ``backward()``. This follows from the order of the calls. (A script that resets each micro-batch's gradient by hand, as
    differentially private training does, looks the same.)

Wrong:
    for x, y in micro_batches:
        (loss_fn(model(x), y) / len(micro_batches)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

Right:
    for x, y in micro_batches:
        (loss_fn(model(x), y) / len(micro_batches)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

References:
    - https://docs.pytorch.org/docs/stable/notes/amp_examples.html#gradient-accumulation
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import percent
from gradclip.diagnosis.readings.event_order import Order
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.clip_events import clips_by_backward, conclusive_orders, tensors_reached
from gradclip.diagnosis.signals.step_share import cached_by_events, share_of_steps
from gradclip.runs import Event

FIX = """\
for i, (x, y) in enumerate(loader):
    (loss_fn(model(x), y) / accumulate).backward()
    if (i + 1) % accumulate == 0:
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)  # once, of the sum
        optimizer.step()
        optimizer.zero_grad()
# or, once before the loop, which clips inside of step():
gradclip.attach(optimizer, "global_norm:1.0")"""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect clippings of single micro-batches."""
    orders = conclusive_orders(run, optimizer)
    again = cached_by_events(lambda order: _repeated_clip(order, optimizer))
    bad = [order for order in orders if again(order)]
    share = share_of_steps(
        "share of steps clipped after several backward() each", orders, lambda order: again(order) is not None
    )
    if share is None:
        return
    times = sum(bool(part) for part in clips_by_backward(bad[0]))
    sentence = f"Gradients are clipped after each of {times} backward() calls of a step, at {percent(share.value)} of steps."
    clip = _repeated_clip(bad[0], optimizer)
    place = clip.place if clip else ""
    yield Symptom("warning", sentence, (share, Evidence("clippings in a step", times, 1, bad[0].step)), FIX, "likely", place)


def _repeated_clip(order: Order, optimizer: OptimizerRun) -> Event | None:
    """The clipping that reached the same tensors after several ``backward()``: all its calls reached more than there are."""
    if _by_closure(order):
        return None
    parts = [Counter(clip._replace(sequence=None) for clip in part) for part in clips_by_backward(order)[1:]]
    calls: Counter[Event] = sum(parts, Counter())
    often = (clip for clip in calls if sum(clip in part for part in parts) > 1)
    return next((clip for clip in often if calls[clip] * tensors_reached(clip) > optimizer.tensors), None)


def _by_closure(order: Order) -> bool:
    """Whether ``step()`` called a closure that shows no reset: each of its calls may begin anew, by ``p.grad = None``."""
    kinds = order.kinds
    return "zero_grad" not in kinds and "step" in kinds and "backward" in kinds[kinds.index("step") :]
