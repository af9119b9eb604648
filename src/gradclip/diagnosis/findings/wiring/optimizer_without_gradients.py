"""An optimizer steps again and again, and none of its parameters ever has a gradient.

Why it is bad:
    ``step()`` skips a parameter whose ``.grad`` is None, so nothing is trained. Mostly the optimizer holds other tensors than
    the model does: it was made before the model was replaced, copied or built anew, or it was given copies whose gradients
    nobody fills in.

How it is detected:
    At all of at least 10 steps, the last one included, no tensor of the optimizer had a gradient, although at least one asked
    for one, and ``backward()`` was called before half of them. Where ``zero_grad()`` took the gradients away right before the
    step, that is what is told instead.

Wrong:
    optimizer = torch.optim.AdamW(model.parameters())
    model = copy.deepcopy(model)  # what is trained from here on, the optimizer does not know
    ...
    loss_fn(model(x), y).backward()
    optimizer.step()

Right:
    model = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters())
    ...
    loss_fn(model(x), y).backward()
    optimizer.step()

References:
    - https://docs.pytorch.org/docs/stable/optim.html#constructing-it
    - https://docs.pytorch.org/docs/stable/notes/faq.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import plural
from gradclip.diagnosis.readings.event_order import call_site_of, orders_of
from gradclip.diagnosis.readings.optimizer_settings import frozen_places
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData

FEWEST_STEPS: Final = 10
"""Fewer may be a warm-up of something else."""
HALF: Final = 0.5

EXPLAINS = (
    "backward-without-step", "clip-wrong-parameters", "clip-without-effect", "dead-layer", "update-too-small", "never-clipping",
)  # fmt: skip

FIX = """\
optimizer = torch.optim.AdamW(model.parameters())  # made after the model is what it stays: copied, moved, loaded, wrapped
own = {id(p) for group in optimizer.param_groups for p in group["params"]}
assert any(id(p) in own for p in model.parameters()), "the optimizer holds other tensors than the model\""""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect optimizers that step without any gradient."""
    missing = optimizer.layers.missing
    if (
        len(missing) < FEWEST_STEPS
        or not missing.size
        or not missing.all()
        or len(frozen_places(run, optimizer) or ()) >= optimizer.tensors
    ):
        return
    orders = orders_of(run, optimizer.number)
    after_backward = sum("backward" in order.kinds for order in orders)
    if after_backward < HALF * len(orders) or sum(order.resets_last for order in orders) >= HALF * after_backward:
        return
    steps = len(optimizer.steps)
    sentence = (
        f"None of the {plural(optimizer.tensors, 'tensor')} that the optimizer holds had a gradient in {plural(steps, 'step')}"
    )
    evidence = Evidence("steps with a gradient", 0, 1)
    place = call_site_of(run, optimizer, "step")
    yield Symptom("error", f"{sentence}: it trains nothing.", (evidence,), FIX, "certain", place)
