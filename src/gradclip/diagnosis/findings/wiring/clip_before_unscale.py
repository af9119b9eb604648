"""Gradients are clipped while they are still multiplied by the loss scale of mixed precision.

Why it is bad:
    A ``GradScaler`` multiplies the loss, and with it every gradient, by a factor that begins at 65536. A threshold of 1 that
    meets scaled gradients lets through 1/65536 of what it says: nearly every step is clipped, to nearly nothing, and the
    amount changes whenever the scaler changes its factor.

How it is detected:
    In at least half of the steps under a ``GradScaler`` a clipping ran after ``backward()`` with no ``unscale_`` between the
    two. It is not reported where the threshold is of the size of the loss scale, and so was meant for scaled gradients.

Wrong:
    scaler.scale(loss).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()

Right:
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()

References:
    - https://docs.pytorch.org/docs/stable/notes/amp_examples.html#gradient-clipping
    - Micikevicius et al. 2018, Mixed Precision Training, https://arxiv.org/abs/1710.03740
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import number, percent
from gradclip.diagnosis.readings.event_order import Order
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.clip_events import clips_after_backward, conclusive_orders, value_at
from gradclip.diagnosis.signals.step_share import share_of_steps

MEANT: Final = 0.1
"""A threshold above this share of the loss scale was multiplied by it: usual ones lie near 1, usual scales near 65536."""

FIX = """\
scaler.scale(loss).backward()
scaler.unscale_(optimizer)  # before the clipping
torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
scaler.step(optimizer)
scaler.update()
# or, with no order left to get wrong, once before the loop:
gradclip.attach(optimizer, "global_norm:1.0", scaler=scaler)"""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect clippings of scaled gradients."""
    scaled = [order for order in conclusive_orders(run, optimizer) if value_at(optimizer, "amp_scale", order.step) > 1]
    bad = [order for order in scaled if _is_scaled(order)]
    share = share_of_steps("share of steps clipped before unscale_", scaled, _is_scaled)
    if share is None:
        return
    scales, limits = (np.array([value_at(optimizer, name, o.step) for o in bad]) for name in ("amp_scale", "threshold"))
    seen = limits[np.isfinite(limits)]
    if len(seen) and np.nanmedian(limits / scales) > MEANT:
        return
    sentence = (
        f"Gradients are clipped while multiplied by the loss scale ({number(scales[0])}) at {percent(share.value)} of steps"
    )
    sentence += f": the threshold {number(seen[0])} acts like {number(np.nanmedian(limits / scales))}." if len(seen) else "."
    evidence = (share, Evidence("loss scale", float(scales[0]), 1.0, bad[0].step))
    yield Symptom("error", sentence, evidence, FIX, "certain", clips_after_backward(bad[0])[0].place)


def _is_scaled(order: Order) -> bool:
    """Whether a clipping came between the last ``backward`` and ``step`` with no ``unscale_`` before it."""
    kinds = order.kinds
    if "step" not in kinds or not clips_after_backward(order):
        return False
    until = len(kinds) - 1 - kinds[::-1].index("step")
    last = max((i for i in range(until) if kinds[i] == "backward"), default=until)
    between = kinds[last:until]
    return "clip" in between and "unscale" not in between[: between.index("clip")]
