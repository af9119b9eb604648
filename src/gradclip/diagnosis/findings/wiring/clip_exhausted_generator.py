"""The clipping is given a generator that was read before, so it is given nothing.

Why it is bad:
    ``model.parameters()`` is a generator: it can be read once. The optimizer, or the first clipping, reads it to its end, and
    every later use of the same object finds no parameter. The call returns a norm of 0 and clips nothing, without an error.

How it is detected:
    In at least half of the steps every clipping was called with no tensors at all.

Wrong:
    parameters = model.parameters()
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    ...
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)

Right:
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    ...
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)

References:
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.parameters
    - https://docs.python.org/3/glossary.html#term-generator-iterator
"""

from __future__ import annotations

from collections.abc import Iterator

from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import percent
from gradclip.diagnosis.readings.event_order import Order
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.clip_events import clips_of, conclusive_orders
from gradclip.diagnosis.signals.step_share import share_of_steps

FIX = """\
parameters = list(model.parameters())  # a list can be read again and again
torch.nn.utils.clip_grad_norm_(parameters, max_norm)"""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect clippings of no tensors."""
    orders = conclusive_orders(run, optimizer)
    evidence = share_of_steps("share of steps clipped without a tensor", orders, _is_empty)
    if evidence is None:
        return
    first = next(order for order in orders if _is_empty(order))
    sentence = f"The clipping is called without a single tensor at {percent(evidence.value)} of steps: nothing is clipped."
    yield Symptom("error", sentence, (evidence,), FIX, "certain", clips_of(first)[0].place)


def _is_empty(order: Order) -> bool:
    clips = clips_of(order)
    return bool(clips) and all(clip.reached == 0 for clip in clips)
