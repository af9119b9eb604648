"""Gradients are reset between ``backward()`` and the step, so the step has none.

Why it is bad:
    ``optimizer.step()`` skips parameters without a gradient, and moves by nothing (but momentum and weight decay) on zeros.
    The loss is computed, ``backward()`` is paid for, and the model does not learn; nothing raises an error.

How it is detected:
    In at least half of the steps ``zero_grad()`` was called after the last ``backward()`` and before the step, and the
    gradient norm that the step found was 0.

Wrong:
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()

Right:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

References:
    - https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html
"""

from __future__ import annotations

from collections.abc import Iterator

from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import percent
from gradclip.diagnosis.readings.event_order import call_site_of
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.clip_events import conclusive_orders, value_at
from gradclip.diagnosis.signals.step_share import share_of_steps

FIX = """\
optimizer.zero_grad()  # before backward(), or after the step
loss.backward()
optimizer.step()"""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect steps whose gradients were thrown away."""
    orders = conclusive_orders(run, optimizer)
    what = "share of steps reset between backward() and the step"
    share = share_of_steps(what, orders, lambda order: order.resets_last and value_at(optimizer, "norm", order.step) == 0)
    if share is None:
        return
    sentence = f"Gradients are reset between backward() and the step at {percent(share.value)} of steps: the norm there is 0."
    yield Symptom("error", sentence, (share,), FIX, "certain", call_site_of(run, optimizer, "zero_grad"))
