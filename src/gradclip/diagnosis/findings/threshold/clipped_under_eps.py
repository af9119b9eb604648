"""Clipped gradients are smaller than the eps of Adam, so the steps become short and the run stands still.

Why it is bad:
    Adam divides by the root mean square of past gradients plus eps, so a constant factor cancels, and a threshold that is too
    low seems to do no harm. It cancels only while gradients are well above eps: below it the division is by eps alone, and a
    gradient that was clipped to a thousandth of eps makes a thousandth of the step. One enormous tensor, or a loss in large
    units, is enough to clip all the others that far.

How it is detected:
    The optimizer is Adam or of its kin, and all gradients are clipped to one constant norm. At half of the recorded steps or
    more, half of the tensors with a gradient had a root mean square at or above the eps of their parameter group before
    clipping, and below a tenth of it afterwards. It is a note where the loss lost 90% of its size all the same.

Wrong:
    optimizer = torch.optim.Adam(model.parameters(), eps=1e-8)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-8)

Right:
    optimizer = torch.optim.Adam(model.parameters(), eps=1e-8)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)

References:
    - Kingma and Ba 2015, Adam, algorithm 1, https://arxiv.org/abs/1412.6980
    - Wortsman et al. 2023, Small-scale proxies for large-scale Transformer training instabilities, section 3.4, https://arxiv.org/abs/2309.14322
    - A run that stalled so: https://github.com/NVIDIA/Megatron-LM/pull/5395
    - https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from gradclip.diagnosis.advice.threshold_fix import attach_fix
from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import number, percent
from gradclip.diagnosis.readings.optimizer_settings import adaptive_eps
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.global_norm_clipping import global_norm_clipping_of
from gradclip.diagnosis.signals.loss_progress import has_learned
from gradclip.diagnosis.signals.step_share import HALF

EXPLAINS: Final = ("always-clipping", "update-too-small")
FEWEST_ROWS: Final = 20
"""Recorded steps; the first ones are rarely like the rest."""
BELOW: Final = 0.1
"""Of eps: the step is a tenth of what it would be, or less."""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect gradients that clipping has put below eps."""
    clipping, eps = global_norm_clipping_of(run, optimizer), adaptive_eps(run, optimizer)
    if clipping is None or np.isnan(eps).all():
        return
    layers, steps = optimizer.layers, optimizer.steps.step[clipping.rows]
    _, rows, at = np.intersect1d(layers.steps, steps, assume_unique=True, return_indices=True)
    if len(rows) < FEWEST_ROWS:
        return
    kept = np.minimum(clipping.threshold / clipping.norms[at], 1.0)
    sizes = [sum(optimizer.tensor_infos[member].numel for member in group.members) for group in layers.groups]
    before = layers.norms[rows].astype(np.float64) / np.sqrt(sizes)
    after = before * kept[:, None]
    sunk = (before >= eps) & (after < BELOW * eps)
    shares = sunk.sum(axis=1) / np.maximum((before > 0).sum(axis=1), 1)
    share = float((shares >= HALF).mean())
    if share < HALF:
        return
    worst = int(sunk.sum(axis=0).argmax())
    size = float(np.median(after[sunk[:, worst], worst]))
    name = layers.groups[worst].name
    yield Symptom(
        "note" if has_learned(run, optimizer) else "warning",
        f"Clipping to {number(clipping.threshold)} leaves gradients far below the optimizer's eps at {percent(share)} of steps "
        f"({number(size)} in {name}, where eps is {number(eps[worst])}), so the weights hardly move.",
        (
            Evidence("root mean square of the clipped gradient", size, float(eps[worst]), tensor=name),
            Evidence("share of tensors below eps", float(np.median(shares)), HALF),
            Evidence("share of its norm that the middle step keeps", float(np.median(kept))),
        ),
        f"# a clipping that leaves gradients above eps:\n{attach_fix(optimizer)}",
        "likely",
        clipping.where,
    )
