"""What is worked out of the tensor norms of many steps at once: their sums, and what clipping has made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradclip.runs.schema import ABSENT

__all__ = ["StepNumbers", "factors", "step_numbers", "totals"]

Floats = NDArray[np.float64]


class StepNumbers(NamedTuple):
    """Those of one step."""

    norm: float
    nonfinite: int
    """How many tensors held a NaN or Inf."""
    clipped_norm: float
    factor: float | None
    """The one number that clipping has multiplied all norms by; None where there is none, or nothing was clipped."""


def step_numbers(steps: Sequence[tuple[Floats, Floats | None]]) -> list[StepNumbers]:
    """Work out steps from their norms before and after clipping; those that are alike together, which costs a few calls."""
    alike: dict[tuple[int, bool], list[int]] = {}
    for place, (before, after) in enumerate(steps):
        alike.setdefault((len(before), after is not None), []).append(place)
    found: list[StepNumbers | None] = [None] * len(steps)
    with np.errstate(all="ignore"):
        for (_, clipped), places in alike.items():
            before = np.stack([steps[place][0] for place in places])
            norms = totals(before).tolist()
            bad = (~np.isfinite(before)).sum(axis=1).tolist()
            after_norms: list[float] = norms
            by: list[float | None] = [None] * len(places)
            if clipped:
                after = np.stack([steps[place][1] for place in places])  # type: ignore[misc]
                after_norms, by = totals(after).tolist(), factors(before, after)
            for place, numbers in zip(places, zip(norms, bad, after_norms, by, strict=True), strict=True):
                found[place] = StepNumbers(*numbers)
    return [one for one in found if one is not None]


def totals(norms: Floats) -> Floats:
    """Return the norm of all tensors together, of each row; scaled so that no square overflows, absent ones do not count."""
    present = np.where(norms == ABSENT, 0.0, norms)
    largest = present.max(axis=1, initial=0.0)
    usual = (largest > 0) & np.isfinite(largest)
    scale = np.where(usual, largest, 1.0)
    together: Floats = np.where(usual, scale * np.sqrt(np.square(present / scale[:, None]).sum(axis=1)), largest)
    return together


def factors(before: Floats, after: Floats) -> list[float | None]:
    """Return the one number that all norms of a row were multiplied by, where there is one: it takes no room in the file."""
    if not before.shape[1]:
        return [None] * len(before)
    moving = before > 0
    counts = moving.sum(axis=1)
    ratios = np.sort(np.where(moving, after / before, np.inf), axis=1)
    rows = np.arange(len(before))
    middle, last = ratios[rows, np.minimum(counts // 2, counts - 1)], ratios[rows, counts - 1]
    one = (counts > 0) & np.isfinite(before).all(axis=1) & np.isfinite(after).all(axis=1)
    one &= np.maximum(last - middle, middle - ratios[:, 0]) <= 1e-5 * np.abs(middle)
    return [factor if there else None for factor, there in zip(middle.tolist(), one.tolist(), strict=True)]
