"""An optimizer's parameters get gradients, but it never steps, so they never change.

Why it is bad:
    A part of the model stays as it was initialised while its gradients are computed (and, without a reset, pile up). The loss
    may still fall, by what the other parts learn, so it goes unnoticed.

How it is detected:
    The run has ended after some steps, and an optimizer whose parameters were given gradients by ``backward()`` has not
    stepped once; parameters that another optimizer steps do not count.

Wrong:
    body = torch.optim.AdamW(model.body.parameters())
    head = torch.optim.AdamW(model.head.parameters())
    ...
    loss.backward()
    head.step()

Right:
    loss.backward()
    body.step()
    head.step()

References:
    - https://docs.pytorch.org/docs/stable/optim.html#taking-an-optimization-step
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import plural
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData

ENOUGH: Final = 10
"""Steps of the others; with fewer, its turn may still have been to come."""

FIX = """\
loss.backward()
for optimizer in optimizers:  # every one whose parameters the loss reaches
    optimizer.step()
    optimizer.zero_grad()"""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect optimizers that hold gradients and never step."""
    if run.status == "running" or run.length < ENOUGH:
        return
    known = {one.number for one in run.optimizers}
    for number, tensors in _unstepped(run.meta):
        teller = number if number in known else min(known)  # an optimizer without a step is none of the run's
        if teller == optimizer.number:
            yield _symptom(run, number, tensors)


def _symptom(run: RunData, number: int, tensors: int) -> Symptom:
    sentence = f"Optimizer {number} never stepped in {plural(run.length, 'step')} of others, while {plural(tensors, 'tensor')}"
    evidence = Evidence(f"tensors with gradients in optimizer {number}", tensors, 0)
    return Symptom("warning", f"{sentence} of it had gradients.", (evidence,), FIX, "likely")


def _unstepped(meta: Any) -> Iterator[tuple[int, int]]:
    """What the run file says, as far as it can be read."""
    listed = meta.get("unstepped")
    for one in listed if isinstance(listed, list) else []:
        number, tensors = (one.get(key) if isinstance(one, dict) else None for key in ("optimizer", "tensors"))
        if isinstance(number, int) and isinstance(tensors, int) and tensors > 0:
            yield number, tensors
