"""Gradients are never reset, so each step uses the sum of all that were computed so far.

Why it is bad:
    ``backward()`` adds to ``.grad``. Without a reset after each step the update follows old batches and old weights, the
    gradient norm grows with the number of steps, and clipping then acts on the sum: nearly all of the newest gradient is lost.

How it is detected:
    In at least 40% of the steps after the first, the optimizer stepped, ``backward()`` ran, and it stepped again, and between
    the two steps its gradients were neither set to None nor zeroed. Resets by hand count as well as ``zero_grad()``.

Wrong:
    loss_fn(model(x), y).backward()  # of every batch
    optimizer.step()

Right:
    optimizer.zero_grad()
    loss_fn(model(x), y).backward()
    optimizer.step()

References:
    - https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html
    - https://docs.pytorch.org/tutorials/recipes/recipes/zeroing_out_gradients.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import number, percent
from gradclip.diagnosis.readings.event_order import Order, call_site_of
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.clip_events import conclusive_orders
from gradclip.diagnosis.signals.step_share import share_of_steps

SHARE: Final = 0.4
"""A script that resets at every second step only shows it at half of them, less those at the ends."""

FIX = """\
for x, y in loader:
    optimizer.zero_grad()  # or right after optimizer.step()
    loss_fn(model(x), y).backward()
    optimizer.step()"""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect steps that use what an earlier one has used."""
    if len(run.optimizers) > 1 and _by_closures(run):  # the reset comes inside of step(), after others have called backward
        return
    orders = conclusive_orders(run, optimizer)[1:]
    share = share_of_steps("share of steps with gradients of earlier ones", orders, _is_stale, SHARE)
    if share is None:
        return
    sentence = f"Gradients are not reset between steps at {percent(share.value)} of them: each adds to those before"
    grown = _grown(optimizer)
    sentence += f", and their norm has grown to {number(grown.value)} times its first." if grown else "."
    place = call_site_of(run, optimizer, "step")
    yield Symptom("error", sentence, (share, *([grown] if grown else [])), FIX, "certain", place)


def _is_stale(order: Order) -> bool:
    return "stale" in order.kinds


def _by_closures(run: RunData) -> bool:
    """Whether ``backward`` runs inside of ``step``: behind it nothing else is kept."""
    patterns = {tuple(event.kind for event in events) for *_, events in run.events}
    return any("step" in kinds and "backward" in kinds[len(kinds) - kinds[::-1].index("step") :] for kinds in patterns)


def _grown(optimizer: OptimizerRun) -> Evidence | None:
    """How many times the first norm the last one is, where it is more."""
    norms = optimizer.norms[np.isfinite(optimizer.norms)]
    if len(norms) < 2 or not norms[0] > 0 or norms[-1] <= norms[0]:
        return None
    return Evidence("last gradient norm, relative to the first", float(norms[-1] / norms[0]), 1.0)
