"""Which clipping a run's norms ask for: one rule, written out.

The rule looks at the last half of the steps where there are enough of them, because the first norms of a training are rarely
those of the rest. A *spike* is a norm above ``SPIKE`` times the median.

1. Without a finite norm above 0, nothing is suggested.
2. Where one layer is nearly all of the norm at most steps: ``tensor_norm``, as a guard for the others, because a threshold for
   all gradients together would be one for that layer.
3. Without spikes: twice the 99th percentile, a guard that acts only when something breaks.
4. With spikes that one layer makes (it is most of the norm at spikes, and not otherwise): its own threshold, by
   ``tensor_norm``, or by ``group_norm`` where the layer is a module of several tensors.
5. With other spikes: the 90th percentile for all gradients together.

Non-finite steps change none of it: no threshold helps there, the policy that skips them does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradclip.diagnosis.advice.threshold_candidates import finite_norms, last_half, would_clip
from gradclip.diagnosis.formatting import number, percent, plural
from gradclip.diagnosis.readings.run_data import Layers
from gradclip.diagnosis.signals.dominant_layer import DominantLayer, dominant_layer_of

__all__ = ["Choice", "Suggestion", "suggest"]

ENOUGH = 100
"""With fewer steps a high percentile is one step or two."""
SPIKE = 5.0
GUARD = 2.0
MOST_OF_IT = 0.8
"""Of the squared norm at a spike, and of the spikes."""
USUAL = 0.5
"""Of the squared norm at other steps; a layer above it is simply the largest one."""
DRIFT = 3.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """A recipe that fits."""

    recipe: str
    share: str
    """Of the steps, those it would have clipped, in words."""
    why: str


@dataclass(frozen=True)
class Suggestion:
    """What to clip with."""

    choices: tuple[Choice, ...]
    """The recipes that fit, the recommended one first; none where nothing can be said."""
    notes: tuple[str, ...] = ()
    """What limits the advice, in sentences."""

    @property
    def recipe(self) -> str | None:
        """The recommended recipe."""
        return self.choices[0].recipe if self.choices else None

    @property
    def sentence(self) -> str:
        """The recommendation and its reason."""
        if not self.choices:
            return "No clipping can be suggested."
        return f"Suggested: --clip {self.choices[0].recipe}, because {self.choices[0].why}."


def suggest(norms: ArrayLike, layers: Layers | None = None, *, bad: int = 0, clipped: bool = False) -> Suggestion:
    """Suggest a recipe for a run, by the rule above.

    Args:
        norms: the norm of each step before clipping; what is not finite is left out.
        layers: the norms of the layers, to see which one makes the spikes.
        bad: how many steps held a NaN or Inf.
        clipped: whether the run was clipped.

    >>> suggest([1.0, 1.1, 0.9] * 100).recipe
    'global_norm:2.2'
    >>> suggest(([1.0] * 19 + [50.0]) * 20).recipe
    'global_norm:1.0'
    """
    every = finite_norms(norms)
    notes = tuple(_notes(every, bad, clipped))
    if not (every > 0).any():
        return Suggestion((), ("No finite gradient norm above 0 was recorded: find out why before clipping.", *notes))
    dominant = None if layers is None else dominant_layer_of(layers)
    if layers is not None and dominant is not None:
        alone = f"{dominant.name} is nearly all of the norm: a threshold for all gradients together would be one for it alone."
        return Suggestion((_beside(layers, dominant),), (alone, *notes))
    recent = last_half(every) if len(every) >= ENOUGH else every
    middle = float(np.median(recent[recent > 0])) if (recent > 0).any() else float(np.median(every[every > 0]))
    spikes = recent[recent > SPIKE * middle]
    guard = _global(recent, GUARD * float(np.percentile(recent, 99)), _why_guard(len(spikes)))
    top = _global(recent, float(np.percentile(recent, 90)), _why_top(recent, spikes, middle))
    first = [guard, top] if not len(spikes) else [top, guard]
    own = _own_threshold(layers, SPIKE * middle) if layers is not None and len(spikes) else None
    return Suggestion((*([own] if own else []), *(c for c in first if c), *_moving()), notes)


def _global(recent: Floats, threshold: float, why: str) -> Choice | None:
    limit = _rounded(threshold)
    return Choice(f"global_norm:{limit}", f"{percent(would_clip(recent, limit))} of steps", why) if limit > 0 else None


def _why_guard(spikes: int) -> str:
    if spikes:
        return "twice the 99th percentile acts on the worst spikes alone"
    none = f"no norm was above {SPIKE:g} times the median"
    return f"{none}, so twice the 99th percentile is a guard that acts only when something breaks"


def _why_top(recent: Floats, spikes: Floats, middle: float) -> str:
    if not len(spikes):
        return "the 90th percentile cuts the largest tenth of the steps, a stronger hand than these norms ask for"
    most = number(float(spikes.max() / middle))
    spiked = f"{len(spikes):,} of {plural(len(recent), 'norm')} spiked above {SPIKE:g} times the median (up to {most} times)"
    return f"{spiked}, and the 90th percentile cuts spikes while it leaves most steps alone"


def _moving() -> Iterator[Choice]:
    from gradclip.recipes import RECIPES

    if "autoclip" in RECIPES:
        yield Choice(
            "autoclip:90", "about 10% of steps", "it follows the 90th percentile as the norm moves, with no number to choose"
        )


def _beside(layers: Layers, dominant: DominantLayer) -> Choice:
    """A threshold for single tensors that stops the largest one, and leaves the others alone."""
    limit = _rounded(GUARD * float(np.percentile(dominant.largest_other, 99)))
    norms = np.where(layers.missing, 0.0, layers.norms)[dominant.rows]
    touched = percent(float((norms > limit).any(axis=1).mean()))
    why = f"{dominant.name} alone makes the norm (the others are {percent(dominant.left)} of it), and this leaves them alone"
    return Choice(f"tensor_norm:{limit}", f"some tensor at {touched} of steps", why)


def _own_threshold(layers: Layers, spike: float) -> Choice | None:
    """A threshold of its own for the one layer that makes the spikes; None where it is not one layer."""
    squares = np.square(np.where(layers.missing, 0.0, layers.norms.astype(np.float64)))
    squares = squares[np.isfinite(squares).all(axis=1)]
    whole = squares.sum(axis=1)
    shares = squares / np.where(whole > 0, whole, 1.0)[:, None]
    high = np.sqrt(whole) > spike
    if not high.any() or high.all() or squares.shape[1] < 2:
        return None
    worst = int(np.bincount(shares[high].argmax(axis=1)).argmax())
    if (shares[high, worst] >= MOST_OF_IT).mean() < MOST_OF_IT or shares[~high, worst].mean() > USUAL:
        return None
    return _layer_choice(layers, worst, np.sqrt(squares), np.sqrt(np.maximum(whole - squares[:, worst], 0.0)), high)


def _layer_choice(layers: Layers, worst: int, norms: Floats, others: Floats, high: NDArray[np.bool_]) -> Choice | None:
    group = layers.groups[worst]
    why = f"{group.name} alone makes the spikes, and this leaves the other layers alone"
    if len(group.members) == 1:
        limit = _rounded(float(np.percentile(norms[~high].max(axis=1), 99)))
        touched = float((norms > limit).any(axis=1).mean())
        return Choice(f"tensor_norm:{limit}", f"some tensor at {percent(touched)} of steps", why) if limit > 0 else None
    limits = [_rounded(float(np.percentile(part[~high], 99))) for part in (norms[:, worst], others)]
    if not re.fullmatch(r"[\w.]+", group.name) or min(limits) <= 0:
        return None
    touched = float(((norms[:, worst] > limits[0]) | (others > limits[1])).mean())
    recipe = f"group_norm:{limits[0]}|{limits[1]},patterns={group.name}.*|*"
    return Choice(recipe, f"some layer at {percent(touched)} of steps", why)


def _notes(norms: Floats, bad: int, clipped: bool) -> Iterator[str]:
    if len(norms) < ENOUGH:
        yield f"Only {plural(len(norms), 'step')} with a finite norm: too few for the high percentiles; record a few hundred."
    if bad:
        held = f"{plural(bad, 'step')} held a NaN or Inf"
        yield f"{held}: no threshold helps there; every recipe skips such a step, and that does the work."
    late = last_half(norms)
    if len(norms) >= ENOUGH:
        start, end = (float(np.median(part)) for part in (late[: len(late) // 4], late[-len(late) // 4 :]))
        if max(start, end) > DRIFT * min(start, end):
            moved = f"from {number(start)} to {number(end)} in the last half"
            yield f"The norm was still moving ({moved}): a constant may not fit for long."
    if clipped:
        yield "The run was clipped: these are norms before clipping, but its path would have been another without."


def _rounded(value: float) -> float:
    """Two digits: a third would claim to know too much."""
    return float(f"{value:.2g}")
