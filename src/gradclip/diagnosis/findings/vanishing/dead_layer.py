"""The gradient of a weight matrix is exactly 0 at every step, while other tensors still get one.

Why it is bad:
    A norm of exactly 0 is not a small gradient but none: every unit behind the matrix is switched off for every example. A
    ReLU whose input is below 0 everywhere passes nothing back, so no step can switch it on again, and all layers before it
    stand still with it.

How it is detected:
    From some step to the last one the norm of a layer with a weight matrix was exactly 0, for at least 50 steps and a tenth
    of the run, and at these steps another tensor had a gradient above 0. Where it was 0 from the first step on, it is a
    warning only if the loss stalls: a part that is weighted with 0 on purpose looks the same. Vectors are left out: some
    biases have no gradient for good reasons.

Wrong:
    nn.init.constant_(layer.bias, -10.0)  # below 0 for every example
    hidden = torch.relu(layer(x))

Right:
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    hidden = nn.functional.leaky_relu(layer(x), 0.01)

References:
    - Lu et al. 2019, Dying ReLU and initialization, https://arxiv.org/abs/1903.06733
    - He et al. 2015, Delving deep into rectifiers, https://arxiv.org/abs/1502.01852
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.LeakyReLU.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Confidence, Severity, Symptom
from gradclip.diagnosis.findings.vanishing import vanishing_in_depth
from gradclip.diagnosis.formatting import plural
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.loss_progress import stalls
from gradclip.diagnosis.signals.weight_matrices import Matrices, matrices_of

FEWEST_STEPS: Final = 50
"""Without a gradient, up to the last step; a gate that starts at 0 opens within a few."""
SHARE: Final = 0.1
"""Of the run; a part that is used now and then is not dead."""

FIX = """\
for group in optimizer.param_groups:
    group["lr"] *= 0.1  # too long a step is what mostly switches units off
hidden = nn.functional.leaky_relu(layer(x), 0.01)  # passes a gradient back everywhere; so does GELU
nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
nn.init.zeros_(layer.bias)"""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect layers whose gradient is exactly 0 up to the end, while others have one."""
    layers = _where_others_live(optimizer)
    stretches = _stretches(layers)
    dead = np.flatnonzero(stretches >= max(FEWEST_STEPS, SHARE * len(layers.norms)))
    if not len(dead) or any(vanishing_in_depth.detect(run, optimizer)):  # so small that float32 has no number for it
        return
    first = int(dead[np.argmin(stretches[dead])])
    length, name = int(stretches[first]), layers.names[first]
    step = int(layers.steps[len(layers.steps) - length])
    severity, confidence = _weight(length == len(layers.norms), stalls(run, optimizer))
    yield Symptom(
        severity,
        f"The gradient of {name}{_more(len(dead))} is exactly 0 from step {step:,} on, while other tensors have one.",
        tuple(_evidence(layers, stretches, dead)),
        FIX,
        confidence,
    )


def _where_others_live(optimizer: OptimizerRun) -> Matrices:
    """The matrices at the steps at which any tensor had a finite gradient above 0."""
    layers, every = matrices_of(optimizer), optimizer.layers.norms
    living = (every > 0).any(axis=1) & ~optimizer.layers.nonfinite.any(axis=1)
    return Matrices(layers.names, layers.sizes, layers.steps[living], layers.norms[living])


def _stretches(layers: Matrices) -> np.ndarray:
    """How many of the last steps each matrix was at 0."""
    alive = layers.norms[::-1] != 0  # one without a gradient is not at 0, it is absent
    if not len(alive):
        return np.zeros(len(layers.names), np.int64)
    return np.where(alive.any(axis=0), alive.argmax(axis=0), len(alive))


def _weight(always: bool, stalled: bool | None) -> tuple[Severity, Confidence]:
    if stalled:
        return "warning", "likely"
    return ("note", "possible") if always else ("warning", "possible")


def _more(count: int) -> str:
    return f" (and of {plural(count - 1, 'layer')} more)" if count > 1 else ""


def _evidence(layers: Matrices, stretches: np.ndarray, dead: np.ndarray) -> Iterator[Evidence]:
    limit = max(FEWEST_STEPS, SHARE * len(layers.norms))
    for place in dead[:3].tolist():
        length = int(stretches[place])
        step = int(layers.steps[len(layers.steps) - length])
        yield Evidence("steps with a gradient of exactly 0, up to the last", length, limit, step, layers.names[place])
