"""One sentence on a run (one for each optimizer where there are several), computed from its numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradclip.diagnosis.advice.threshold_candidates import finite_norms
from gradclip.diagnosis.event_text import clip_text
from gradclip.diagnosis.formatting import number, percent, plural
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData

__all__ = ["ENDINGS", "verdict"]

ENDINGS = {
    "finished": "finished",
    "crashed": "crashed",
    "interrupted": "was interrupted",
    "killed": "was killed",
    "running": "is still running",
    "incomplete": "was recorded only in part",
}
"""What a sentence says of each status."""

MOVED = 1.5
"""Medians of the first and the last tenth that differ by less are called the same."""

SPIKE = 5.0
"""A norm of so many times the median stands out."""


def verdict(run: RunData) -> str:
    """Say what happened in a run, and what is not known of the ranks of a job.

    Returns:
        For example ``train.py finished after 300 steps: the gradient norm stayed near 1.1 (median), at most 4.9 at step 3;
        clipping (clip_grad_norm_ to 1) acted on 99.7% of steps.``
    """
    problems = () if run.ranks is None else run.ranks.problems
    return " ".join([_verdict(run), *(f"{_capital(problem)}." for problem in problems)])


def _verdict(run: RunData) -> str:
    """Say what the norms did, whether clipping acted, what was skipped, and how the run ended."""
    ended = ENDINGS.get(run.status, run.status)
    if not run.length:
        return f"{run.title} {ended}; no step was recorded."
    parts = [optimizer for optimizer in run.optimizers if len(optimizer.steps)]
    if len(parts) == 1:
        return f"{run.title} {ended} after {plural(len(parts[0].steps), 'step')}: {_optimizer(run, parts[0])}."
    said = (f"optimizer {part.number}, {plural(len(part.steps), 'step')}: {_optimizer(run, part)}" for part in parts)
    return f"{run.title} {ended}. {'. '.join(map(_capital, said))}."


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _optimizer(run: RunData, optimizer: OptimizerRun) -> str:
    parts = [_norms(optimizer), _clipping(run, optimizer), _bad(optimizer), _lost(optimizer)]
    return "; ".join(part for part in parts if part)


def _norms(optimizer: OptimizerRun) -> str:
    finite = finite_norms(optimizer.norms)
    if not len(finite):
        return "no finite gradient norm was recorded"
    middle, largest = float(np.median(finite)), float(finite.max())
    norms, steps = optimizer.steps.norm, optimizer.steps.step
    at = int(steps[np.flatnonzero(norms == largest)[0]])
    peak = f"at most {number(largest)} at step {at:,}"
    if largest > SPIKE * middle > 0:
        peak += f", {number(largest / middle)} times the median"
    return f"the gradient norm {_trend(finite, middle)}, {peak}"


def _trend(finite: NDArray[np.float64], middle: float) -> str:
    tenth = max(1, len(finite) // 10)
    first, last = float(np.median(finite[:tenth])), float(np.median(finite[-tenth:]))
    if max(first, last) <= MOVED * min(first, last):
        return f"stayed near {number(middle)}"
    return f"{'rose' if last > first else 'fell'} from about {number(first)} to {number(last)}"


def _clipping(run: RunData, optimizer: OptimizerRun) -> str:
    if not optimizer.steps.clip_attempts:
        return "nothing was clipped"
    how = run.meta.get("clip") or _own(run, optimizer)
    acted = f"acted on {percent(optimizer.steps.clip_rate)} of steps" if optimizer.steps.clipped.any() else "never acted"
    return f"clipping{f' ({how})' if how else ''} {acted}"


def _own(run: RunData, optimizer: OptimizerRun) -> str:
    """What the script itself clips with."""
    clips = (event for *_, events in run.events[:100] for event in events if event.kind == "clip" and event.function)
    names = {clip_text([clip._replace(detail="")]) for clip in clips if clip.optimizer == optimizer.number}
    limits = np.unique(finite_norms(optimizer.steps.threshold))
    name = names.pop() if len(names) == 1 else ""
    limit = f" at {number(float(limits[0]))}" if len(limits) == 1 else ""
    return f"{name}{limit}".strip()


def _bad(optimizer: OptimizerRun) -> str:
    bad, skipped = int(optimizer.bad.sum()), int(optimizer.steps.skipped.sum())
    both = int((optimizer.bad & optimizer.steps.skipped).sum())
    if not bad:
        return f"{_were(skipped)} skipped" if skipped else ""
    first = int(optimizer.steps.step[np.flatnonzero(optimizer.bad)[0]])
    held = f"{plural(bad, 'step')} held a NaN or Inf, {'the first' if bad > 1 else 'it was'} step {first:,}"
    if skipped == both == bad:
        return f"{held}, and {'was' if bad == 1 else 'all were'} skipped"
    return f"{held}; {_were(skipped) if skipped else 'none was'} skipped"


def _were(count: int) -> str:
    return f"{plural(count, 'step')} {'was' if count == 1 else 'were'}"


def _lost(optimizer: OptimizerRun) -> str:
    """Whether the loss ended as no number, and since when."""
    there = ~optimizer.steps.missing["loss"]
    losses, steps = optimizer.steps.loss[there], optimizer.steps.step[there]
    if not len(losses) or np.isfinite(losses[-1]):
        return ""
    finite = np.flatnonzero(np.isfinite(losses))
    return f"the loss was not a finite number from step {int(steps[finite[-1] + 1 if len(finite) else 0]):,} to the end"
