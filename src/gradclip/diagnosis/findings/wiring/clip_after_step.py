"""Gradients are clipped after the optimizer has used them, so the clipping does nothing.

Why it is bad:
    ``optimizer.step()`` has read the unclipped gradients when the clipping runs, and ``zero_grad`` throws the clipped ones
    away. The run is one without clipping, while its code and its logs say otherwise.

How it is detected:
    In at least half of the steps a clipping ran after the step before and ahead of the first ``backward()``, and none ran
    between that and the step; the very first step has none yet. This follows from the order of the calls, not from numbers.
    Where optimizers step inside ``backward()``, every clipping behind it is too late; ``gradclip.InBackward`` clips in time.

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

from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import percent
from gradclip.diagnosis.readings.optimizer_settings import steps_in_backward
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.clip_events import clips_before_backward, conclusive_orders
from gradclip.diagnosis.signals.step_share import share_of_steps

FIX = """\
loss.backward()
torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)  # between backward and step
optimizer.step()
# or, with no order left to get wrong, once before the loop:
gradclip.attach(optimizer, "global_norm:1.0")"""
FIX_IN_BACKWARD = """\
optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}
gradclip.InBackward(model, "tensor_norm:1.0", optimizers)  # in place of the hooks: clips, steps and frees each gradient
loss.backward()"""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect clippings that come too late for the step."""
    orders = conclusive_orders(run, optimizer)
    late = [clip for order in orders for clip in clips_before_backward(order)]
    if not late or clips_before_backward(orders[0]):  # before the first step nothing can come after one
        return
    evidence = share_of_steps(
        "share of steps clipped only after the step", orders, lambda order: bool(clips_before_backward(order))
    )
    if evidence is None:
        return
    inside = steps_in_backward(run, optimizer)
    after = "backward(), inside of which the optimizers step," if inside else "optimizer.step()"
    sentence = f"Gradients are clipped after {after} at {percent(evidence.value)} of steps: no step was clipped by it."
    yield Symptom("error", sentence, (evidence,), FIX_IN_BACKWARD if inside else FIX, "certain", late[0].place)
