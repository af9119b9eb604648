"""One tensor is nearly all of the norm that is clipped, so every other tensor is cut for its sake.

Why it is bad:
    A threshold for all gradients together multiplies them by one factor. Where a single tensor is a hundred times larger than
    all the others, that factor is made for it alone: the others are cut to a small part of what they were although they were
    never large, and no threshold fits both. Under SGD they stop learning; under Adam they may fall below its eps.

How it is detected:
    At half of the recorded steps or more, in the second half of the run, all other tensors together are at most a hundredth of
    the norm, and so is each of their elements (in the root mean square) beside that tensor's; and clipping to a constant norm
    leaves a tenth of the gradient or less at the middle one of at least 100 steps. It is a warning where the loss hardly
    fell (by less than 5%), nothing where it lost 90% of its size, else a note.

Wrong:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # model.gate has a gradient of 1e10

Right:
    gradclip.attach(optimizer, "tensor_norm:1.0")  # each tensor by itself

References:
    - A norm of 2e11 made by a few layers: https://github.com/NVIDIA/Megatron-LM/pull/5395
    - You, Gitman, Ginsburg 2017, section 4, norms that differ between layers, https://arxiv.org/abs/1708.03888
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from gradclip.diagnosis.advice.recipe_suggestion import GUARD
from gradclip.diagnosis.advice.threshold_fix import attach_fix
from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import number, percent
from gradclip.diagnosis.readings.losses import losses_of
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.dominant_layer import LEFT, DominantLayer, dominant_layer_of
from gradclip.diagnosis.signals.global_norm_clipping import global_norm_clipping_of
from gradclip.diagnosis.signals.loss_progress import has_learned, loss_fell, stalls

EXPLAINS: Final = ("clipped-under-eps", "always-clipping", "threshold-in-the-noise", "update-too-small")
FEWEST_STEPS: Final = 100
"""The first steps of a training have norms of their own."""
KEPT: Final = 0.1
"""Of the gradient at the middle step: a power of ten, as for ``always-clipping``."""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect a tensor whose norm is the only one that counts."""
    clipping, dominant = global_norm_clipping_of(run, optimizer), dominant_layer_of(optimizer.layers)
    if clipping is None or dominant is None or len(clipping.norms) < FEWEST_STEPS or has_learned(run, optimizer):
        return
    kept = float(np.median(np.minimum(clipping.threshold / clipping.norms[len(clipping.norms) // 2 :], 1.0)))
    if kept > KEPT or not _larger_elements(optimizer, dominant):
        return
    yield Symptom(
        "warning" if stalls(run, optimizer) or _ended_where_it_began(optimizer) else "note",
        f"{dominant.name} is nearly all of the gradient norm (the other tensors together are {percent(dominant.left)} of it), "
        f"so clipping to {number(clipping.threshold)} for its sake leaves {percent(kept)} of every other gradient.",
        (
            Evidence("median gradient norm", float(np.median(dominant.whole)), tensor=dominant.name),
            Evidence("median gradient norm of all others together", float(np.median(dominant.others))),
            Evidence("share of the norm that the others make", dominant.left, LEFT),
            Evidence("share of its norm that the middle step keeps", kept, KEPT),
        ),
        _fix(optimizer, dominant),
        "likely",
        clipping.where,
    )


def _ended_where_it_began(optimizer: OptimizerRun) -> bool:
    losses = losses_of(optimizer).values
    return len(losses) >= FEWEST_STEPS and not loss_fell(losses)


def _larger_elements(optimizer: OptimizerRun, dominant: DominantLayer) -> bool:
    """Whether it is its elements that are large, and not that there are many of them, as in an embedding."""
    layers = optimizer.layers
    sizes = [sum(optimizer.tensor_infos[member].numel for member in group.members) for group in layers.groups]
    own = sizes.pop(dominant.place)
    return bool(dominant.left * np.sqrt(own / max(sum(sizes), 1)) <= LEFT)


def _fix(optimizer: OptimizerRun, dominant: DominantLayer) -> str:
    limit = GUARD * float(np.percentile(dominant.others, 99))
    return f"""\
# Find out why the gradient of {dominant.name} is so large. Until then, clip each tensor by itself:
{attach_fix(optimizer)}
# or all but this one together (parameters= gives them their names):
gradclip.attach(optimizer, "global_norm:{limit:.2g},exclude={dominant.name}", parameters=model)"""
