"""Gradients of some ``backward()`` calls are reset before anything has used them.

Why it is bad:
    Those passes are paid for and train nothing. With micro-batches it is mostly ``zero_grad()`` in the wrong loop: only the
    last one of each step counts, at the learning rate that was chosen for all. It is only a note, because a script may mean
    it: to look at gradients, or to drop a batch.

How it is detected:
    In at least half of the steps, gradients of the optimizer were reset after a ``backward()`` and before another one, and its
    weights had not changed in between (as they do in the first half of a SAM step). Resets by hand count, too.

Wrong:
    for i, (x, y) in enumerate(loader):
        optimizer.zero_grad()
        (loss_fn(model(x), y) / 4).backward()
        if (i + 1) % 4 == 0:
            optimizer.step()

Right:
    for i, (x, y) in enumerate(loader):
        (loss_fn(model(x), y) / 4).backward()
        if (i + 1) % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()

References:
    - https://docs.pytorch.org/docs/stable/notes/amp_examples.html#gradient-accumulation
    - https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import number, percent
from gradclip.diagnosis.readings.event_order import call_site_of, orders_of
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.step_share import share_of_steps

FIX = """\
for i, (x, y) in enumerate(loader):
    (loss_fn(model(x), y) / accumulate).backward()
    if (i + 1) % accumulate == 0:
        optimizer.step()
        optimizer.zero_grad()  # only here, so that every micro-batch counts"""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect gradients that are reset unused."""
    orders = [order for order in orders_of(run, optimizer.number) if order.complete]
    share = share_of_steps("share of steps before which gradients were reset unused", orders, lambda o: "unused" in o.kinds)
    if share is None:
        return
    wasted = float(np.median([order.kinds.count("unused") for order in orders if "unused" in order.kinds]))
    sentence = f"Gradients of {number(wasted)} backward() calls a step are reset unused, at {percent(share.value)} of steps."
    evidence = (share, Evidence("calls of backward() a step that nothing uses", wasted, 0))
    yield Symptom("note", sentence, evidence, FIX, "likely", call_site_of(run, optimizer, "zero_grad"))
