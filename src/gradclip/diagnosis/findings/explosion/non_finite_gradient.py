"""A gradient held a NaN or Inf.

Why it is bad:
    A step with a NaN makes the weights NaN, and nothing brings them back: every loss from there on is NaN. Where such steps are
    dropped the weights are safe, but what they should have learned is missing, and the cause is still there.

How it is detected:
    From the first step whose gradients were not finite. If it was neither dropped nor cleaned and no step after it is finite,
    the run is lost. Whether the loss of that step was finite tells forward from backward: a loss that is NaN comes from the
    data or the forward pass; a finite loss with a NaN gradient comes from backward, as in sqrt(0), the norm of a zero vector,
    or 0/0 behind ``torch.where``. Backward runs from the loss to the first layer, so it broke at the last tensor, in the order
    of the model, that is not finite; this order is not always the order of the calls. Steps that a GradScaler drops are its
    way to find its scale and are reported only where they are many: above 1% of the steps and more than 20, or 20 in a row.

Wrong:
    distance = torch.sqrt(((a - b) ** 2).sum(dim=-1))
    loss = torch.log(torch.softmax(logits, dim=-1))[range(n), targets].neg().mean()

Right:
    distance = torch.sqrt(((a - b) ** 2).sum(dim=-1) + 1e-12)
    loss = torch.nn.functional.cross_entropy(logits, targets)

References:
    - https://docs.pytorch.org/docs/stable/autograd.html#anomaly-detection
    - https://docs.pytorch.org/docs/stable/amp.html#gradient-scaling
    - Micikevicius et al. 2018, Mixed precision training, https://arxiv.org/abs/1710.03740
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gradclip.diagnosis.advice.threshold_fix import explosion_fix
from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import number, percent, plural
from gradclip.diagnosis.readings.event_order import call_site_of
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.explosions import explosion_of
from gradclip.diagnosis.signals.loss_harm import applied_nonfinite
from gradclip.diagnosis.signals.nonfinite_gradients import NAMED, NonfiniteGradients, nonfinite_gradients_at

LOST: Final = 0.9
"""Of the steps after it, those that are not finite either: weights that hold a NaN give it to every step."""
OFTEN: Final = 0.01
"""Of all steps. A GradScaler that has found its scale drops one in 2,000, by its default growth interval."""
SEARCH: Final = 20
"""Steps that a GradScaler may drop in a row while it halves its scale from 65536 to find the right one."""

FORWARD: Final = """\
# the loss itself was no finite number: look at this step's data, then for log(0), 0/0 and exp() of a large number
assert torch.isfinite(inputs).all() and torch.isfinite(targets).all()
# cross_entropy or log_softmax in place of log(softmax(x)); torch.log(x + 1e-8); x / (y + 1e-8); torch.logsumexp"""
BACKWARD: Final = """\
# the loss was finite, so the NaN or Inf arose in backward: this names the operation (slow, so for the steps around it alone)
with torch.autograd.set_detect_anomaly(True):
    loss = compute_loss(model, batch)  # your own forward pass
    loss.backward()
# usual: sqrt(x) or x.norm() at 0 -> torch.sqrt(x + 1e-12); 0/0 or log(0) behind torch.where -> mask its input, too"""
EITHER: Final = """\
# no loss was recorded, so this cannot tell forward from backward: see whether the loss is finite, then which operation it was
assert torch.isfinite(loss).all()
with torch.autograd.set_detect_anomaly(True):
    loss = compute_loss(model, batch)  # your own forward pass
    loss.backward()"""
SKIP: Final = """
# to keep the weights from such steps meanwhile (it drops them, and clips nothing):
gradclip.attach(optimizer, "global_norm:inf,nonfinite=skip")"""

Mask = NDArray[np.bool_]


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect the first gradient that was not finite, and what became of it."""
    if not optimizer.bad.any():
        return
    reached = applied_nonfinite(optimizer)
    if reached.any():
        yield _reached(run, optimizer, reached)
    elif _notable(optimizer):
        yield _dropped(run, optimizer)


def _reached(run: RunData, optimizer: OptimizerRun, reached: Mask) -> Symptom:
    """A step with a NaN or Inf that moved the weights."""
    at = int(np.flatnonzero(reached)[0])
    after = optimizer.bad[at + 1 :]
    lost = not len(after) or after.mean() >= LOST
    step, broken = int(optimizer.steps.step[at]), nonfinite_gradients_at(optimizer, int(optimizer.steps.step[at]))
    ended = "it reached the weights: the run is lost from there on" if lost else "it was not skipped"
    loss = _loss_said(optimizer, at)
    sentence = f"At step {step:,} the gradient of {broken} was NaN or Inf{loss}, and {ended}."
    explosion = explosion_of(optimizer)
    fix = _fix(optimizer, at) + SKIP
    if explosion is not None and explosion.step <= step:
        sentence = f"{sentence[:-1]}; the norm had exploded before."
        fix = explosion_fix(run, optimizer, explosion)
    evidence, place = tuple(_evidence(optimizer, at, broken)), call_site_of(run, optimizer, "backward")
    if lost:
        return Symptom("error", sentence, evidence, fix, "certain", place)
    return Symptom("warning", sentence, evidence, fix, "likely", place)


def _dropped(run: RunData, optimizer: OptimizerRun) -> Symptom:
    """Steps that were dropped, or cleaned, so that the weights are safe."""
    bad = optimizer.bad
    at = _stretch(bad)[0]  # a scaler that searches for its scale drops a few before what is wrong begins
    step, share = int(optimizer.steps.step[at]), float(bad.mean())
    broken = nonfinite_gradients_at(optimizer, step)
    sentence = (
        f"{plural(int(bad.sum()), 'step')} ({percent(share)}) had a NaN or Inf in the gradient, at step {step:,} in "
        f"{broken}{_loss_said(optimizer, at)}; the weights were kept from it."
    )
    evidence = (Evidence("share of steps with a NaN or Inf", share, OFTEN), *_evidence(optimizer, at, broken))
    often = share > OFTEN or _stretch(bad)[1] >= SEARCH
    place = call_site_of(run, optimizer, "backward")
    return Symptom("warning" if often else "note", sentence, evidence, _fix(optimizer, at), "certain", place)


def _notable(optimizer: OptimizerRun) -> bool:
    """Whether dropped steps are more than a GradScaler's search for its scale."""
    bad = optimizer.bad
    if (bad & optimizer.steps.missing["amp_scale"]).any():
        return True
    return _stretch(bad)[1] >= SEARCH or int(bad.sum()) > max(SEARCH, OFTEN * len(bad))


def _stretch(mask: Mask) -> tuple[int, int]:
    """Where the longest stretch of True begins, and how long it is."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    lengths = edges[1::2] - edges[::2]
    longest = int(lengths.argmax())
    return int(edges[2 * longest]), int(lengths[longest])


def _evidence(optimizer: OptimizerRun, at: int, broken: NonfiniteGradients) -> Iterator[Evidence]:
    steps = optimizer.steps
    step = int(steps.step[at])
    for name in broken.names[:NAMED] or ("",):
        yield Evidence("gradient norm", float("nan"), step=step, tensor=name)
    if broken.sound:
        yield Evidence("the first finite gradient norm behind it", broken.sound_norm, step=step, tensor=broken.sound)
    if not steps.missing["loss"][at]:
        yield Evidence("loss", float(steps.loss[at]), step=step)
    if at and np.isfinite(steps.norm[at - 1]):
        yield Evidence("gradient norm of the step before", float(steps.norm[at - 1]), step=int(steps.step[at - 1]))


def _loss_said(optimizer: OptimizerRun, at: int) -> str:
    if optimizer.steps.missing["loss"][at]:
        return ""
    loss = float(optimizer.steps.loss[at])
    return f" while the loss was finite ({number(loss)})" if np.isfinite(loss) else f", as was the loss ({number(loss)})"


def _fix(optimizer: OptimizerRun, at: int) -> str:
    if optimizer.steps.missing["loss"][at]:
        return EITHER
    return BACKWARD if np.isfinite(optimizer.steps.loss[at]) else FORWARD
