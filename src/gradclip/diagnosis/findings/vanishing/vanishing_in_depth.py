"""The gradient shrinks from layer to layer on its way from the loss to the input, until the first layers stand still.

Why it is bad:
    Each layer multiplies what comes back by its slope and its weights. Where that is less than 1 again and again, the first
    layers get a gradient that is smaller by powers of ten; they keep their random weights, and the layers above learn from
    what these let through. Clipping does not mend it: it makes gradients smaller, all layers alike.

How it is detected:
    Through the logarithms of the gradient norms of the weight matrices, in model order, goes a robust line (the median
    slope of all pairs), and nine pairs of ten agree on its direction. From the last layer to the first it falls by three
    powers of ten or more, by norm and by root mean square, at nine of ten steps of the second half of the run. And it does
    harm: the loss lost less than 5% of its size, or the updates relative to the weights fall as steeply (under Adam they
    often do not). At least 5 matrices and 20 such steps are needed.

Wrong:
    layers = [nn.Sequential(nn.Linear(64, 64), nn.Sigmoid()) for _ in range(20)]

Right:
    layers = [nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 64), nn.ReLU()) for _ in range(20)]
    for layer in layers:
        nn.init.kaiming_normal_(layer[1].weight, nonlinearity="relu")

References:
    - Glorot, Bengio 2010, Understanding the difficulty of training deep feedforward neural networks, https://proceedings.mlr.press/v9/glorot10a.html
    - He et al. 2015, Delving deep into rectifiers, https://arxiv.org/abs/1502.01852
    - He et al. 2015, Deep residual learning for image recognition, https://arxiv.org/abs/1512.03385
    - https://docs.pytorch.org/docs/stable/nn.init.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Confidence, Severity, Symptom
from gradclip.diagnosis.formatting import number, percent, plural
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.loss_progress import STALLED, progress
from gradclip.diagnosis.signals.norm_decay import norm_decay
from gradclip.diagnosis.signals.weight_matrices import Matrices, matrices_of

LIMIT: Final = 3.0
"""Powers of ten from the last layer to the first: AutoTrainer's 1e-3 (Zhang et al. 2021). Nets that learn stay below 1.5 in the
middle of their steps, 20 tanh layers that vanish are at 4, 20 sigmoid layers at 17."""
FEWEST_LAYERS: Final = 5
"""A line through fewer points is no trend."""
FEWEST_STEPS: Final = 20
"""In the second half; with fewer, it may be the start of a training that finds its way."""
PERSISTENT: Final = 0.9
"""Of the steps in the second half."""
MOST_STEPS: Final = 100
"""Looked at, evenly spaced; more would say the same."""

FIX = """\
# Clipping cannot mend this: it makes gradients smaller. Let the signal keep its size from layer to layer instead:
activation = nn.ReLU()  # or nn.GELU(): sigmoid and tanh have slopes below 1
nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")  # for tanh: nn.init.xavier_normal_(linear.weight, gain=5 / 3)
nn.init.zeros_(linear.bias)
x = x + activation(linear(norm(x)))  # a way past each layer (residual), norm = nn.LayerNorm(width)"""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect norms that fall exponentially towards the input, where it matters."""
    layers = _late(matrices_of(optimizer))
    if len(layers.norms) < FEWEST_STEPS or len(layers.names) < FEWEST_LAYERS:
        return
    fall = norm_decay(layers)
    share = float((fall >= LIMIT).mean())
    if share < PERSISTENT:
        return
    learned, updates = progress(run, optimizer), _updates(optimizer)
    weight = _weight(learned, updates)
    if weight is None:
        return
    times = number(10.0 ** float(np.median(fall)))
    yield Symptom(
        weight[0],
        f"The gradient shrinks about {times}-fold from {layers.names[-1]} to {layers.names[0]}, through {len(layers.names)} "
        f"weight matrices, at {percent(share)} of the last {plural(len(fall), 'step')} looked at{_harm(learned)}.",
        tuple(_evidence(layers, fall, learned, updates)),
        FIX,
        weight[1],
    )


def _late(layers: Matrices) -> Matrices:
    """The second half of the steps, thinned, and the layers that are trained in it."""
    half = layers.norms[len(layers.norms) // 2 :]
    rows = np.unique(np.linspace(0, len(half) - 1, min(len(half), MOST_STEPS)).astype(int)) if len(half) else np.arange(0)
    trained = np.flatnonzero((half > 0).any(axis=0))
    steps = layers.steps[len(layers.norms) // 2 :][rows]
    names = tuple(layers.names[i] for i in trained)
    return replace(layers, names=names, sizes=layers.sizes[trained], steps=steps, norms=half[rows][:, trained])


def _updates(optimizer: OptimizerRun) -> float | None:
    """How far the updates relative to the weights fall in the second half, in powers of ten; None where none was measured."""
    if optimizer.ratios is None:
        return None
    layers = _late(matrices_of(optimizer, optimizer.ratios))
    if len(layers.names) < FEWEST_LAYERS or not len(layers.norms):
        return None
    return float(np.median(norm_decay(replace(layers, sizes=np.ones_like(layers.sizes)))))


def _weight(learned: float | None, updates: float | None) -> tuple[Severity, Confidence] | None:
    """How grave it is; None where the loss falls and the first layers move like the last ones."""
    if learned is not None and learned < STALLED:
        return "warning", "likely"
    if updates is not None:
        return (("note" if learned is not None else "warning"), "likely") if updates >= LIMIT else None
    return None if learned is not None else ("warning", "possible")


def _harm(learned: float | None) -> str:
    return ", and the loss hardly falls" if learned is not None and learned < STALLED else ""


def _evidence(layers: Matrices, fall: np.ndarray, learned: float | None, updates: float | None) -> Iterator[Evidence]:
    middle = float(np.median(fall))
    step = int(layers.steps[int(np.argmin(np.abs(fall - middle)))])
    yield Evidence("powers of ten lost from the last matrix to the first", middle, LIMIT, step, layers.names[0])
    for place in (0, -1):
        yield Evidence("median gradient norm", float(np.nanmedian(layers.norms[:, place])), tensor=layers.names[place])
    if learned is not None:
        yield Evidence("share of its first size that the loss lost", learned, STALLED if learned < STALLED else None)
    if updates is not None:
        yield Evidence("powers of ten by which updates relative to weights fall", updates, LIMIT if updates >= LIMIT else None)
