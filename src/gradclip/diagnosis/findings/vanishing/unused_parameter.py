"""A parameter that the optimizer holds never got a gradient, while all others got one at every step.

Why it is bad:
    It keeps its random first value, and what was meant to be learnt there is not. Mostly the module is made and never
    called, or its output is detached, dropped, or made under ``torch.no_grad()``.

How it is detected:
    At all of at least 50 steps the tensor had no gradient (``None``, not 0), while every other tensor had one at 99% of
    them, and it asked for one (``requires_grad``) at its first step: what is frozen on purpose is none. Where parts take
    turns, as experts do, nothing is said.

Wrong:
    self.gate = nn.Linear(64, 64)  # made in __init__ and never called in forward
    hidden = self.encoder(x).detach()  # nothing before it is trained

Right:
    hidden = self.encoder(x)
    hidden = hidden * torch.sigmoid(self.gate(hidden))

References:
    - https://docs.pytorch.org/docs/stable/generated/torch.Tensor.detach.html
    - https://docs.pytorch.org/docs/stable/notes/autograd.html
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import plural
from gradclip.diagnosis.readings.optimizer_settings import frozen_places
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData

FEWEST_STEPS: Final = 50
"""A part that is unfrozen after a warm-up of a few steps has its gradient by then."""
STEADY: Final = 0.99
"""Of the steps, every other tensor has a gradient; where some come and go, one that never came may be a matter of time."""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect tensors that never had a gradient although all others always had."""
    unused = _unused(run, optimizer)
    if not unused:
        return
    names = [optimizer.layers.groups[i].name for i in unused]
    steps = len(optimizer.layers.steps)
    yield Symptom(
        "warning",
        f"{names[0]}{_more(len(names))} never had a gradient in {plural(steps, 'step')}, while all other tensors had one.",
        tuple(Evidence("steps with a gradient", 0, tensor=name) for name in names[:3]),
        _fix(names[0]),
        "certain",
    )


def _unused(run: RunData, optimizer: OptimizerRun) -> list[int]:
    """The layers that asked for a gradient and had none; none where the others do not have theirs all the time."""
    missing, frozen = optimizer.layers.missing, frozen_places(run, optimizer)
    never = missing.all(axis=0)
    if frozen is None or len(missing) < FEWEST_STEPS or never.all() or missing[:, ~never].mean(axis=0).max() > 1 - STEADY:
        return []
    groups = optimizer.layers.groups
    return [i for i in np.flatnonzero(never).tolist() if not frozen.issuperset(map(str, groups[i].members))]


def _more(count: int) -> str:
    return f" (and {plural(count - 1, 'tensor')} more)" if count > 1 else ""


def _fix(name: str) -> str:
    return f"""\
loss.backward()
for name, parameter in model.named_parameters():
    if parameter.grad is None:  # {name}, for one
        print(name, "is frozen" if not parameter.requires_grad else "is not used: call it, or take .detach() away")
# if it is meant to rest, leave it out of the optimizer:
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])"""
