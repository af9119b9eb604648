"""A run while it is written: a follower that reads what is new, and one screen of it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gradclip.diagnosis.formatting import number, percent, plural, shorten
from gradclip.report.sparkline import sparkline
from gradclip.report.table import Table
from gradclip.runs import ABSENT, Run
from gradclip.runs.totals import Totals

__all__ = ["Follower", "frame"]

HISTORY = 2000
"""Norms that a sparkline looks back on."""
WORST = 8
"""Layers that are listed."""


@dataclass
class Follower:
    """One optimizer of a run that may still be written; :meth:`read_new` reads what is new.

    Args:
        run: the run, open.
        optimizer: its number.
    """

    run: Run
    optimizer: int = 0
    totals: Totals = field(default_factory=Totals)
    step: int | None = None
    seconds: float = 0.0
    norms: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    layers: list[tuple[str, float, float]] = field(default_factory=list)
    """The layers with the largest norms at the last step: name, norm, share of the squared norm."""
    _row: int | None = None

    def read_new(self) -> None:
        """Take in the steps that were written since the last look."""
        new = self.run.steps(self.optimizer, after=self.step)
        if not len(new):
            return
        self.step, self.seconds = int(new.step[-1]), float(new.time[-1])
        norms, losses = new.measured("norm"), new.measured("loss")
        self.norms.extend(norms.tolist())
        self.losses.extend(losses.tolist())
        attempts, flags = new.clip_attempts, {"clipped": new.clipped, "skipped": new.skipped, "bad": new.bad}
        self.totals.add(norms, losses, attempts=attempts, **flags)
        self._look_at_layers()

    def _look_at_layers(self) -> None:
        after = self._row if self._row is not None else (self.step or 0) - HISTORY
        newest = deque(self.run.tensor_chunks("norm", self.optimizer, after=after), maxlen=1)
        if not newest:
            return
        ((steps, rows),) = newest
        self._row = int(steps[-1])
        names = [tensor.name for tensor in self.run.tensors_of(self.optimizer)]
        self.layers = _worst(names, rows[-1], rows[-1] == np.float32(ABSENT))


def frame(follower: Follower, status: str, title: str) -> list[str | Table]:
    """Return what one look shows, as sentences and a table."""
    if follower.step is None:
        return [f"{title}: {status}, no step yet"]
    totals = follower.totals
    speed = f", {number(totals.steps / follower.seconds)} steps a second" if follower.seconds > 0 else ""
    head = f"{title}: {status}, step {follower.step:,}{speed}"
    lines = [
        f"loss     {number(totals.loss):>10}  {sparkline(follower.losses, 40)}",
        f"norm     {number(totals.norm):>10}  {sparkline(follower.norms, 40, log=True)}  at most {number(totals.largest)}",
        f"clipped  {percent(totals.clipped / totals.clip_attempts) if totals.clip_attempts else '–':>10}",
    ]
    if totals.nonfinite or totals.skipped:
        lines.append(f"{plural(totals.nonfinite, 'step')} with a NaN or Inf, {totals.skipped:,} skipped")
    return [head, "\n".join(lines), *([_layer_table(follower.layers)] if follower.layers else [])]


def _worst(names: Sequence[str], norms: NDArray[np.float32], missing: NDArray[np.bool_]) -> list[tuple[str, float, float]]:
    """The layers with the largest norms; what is not finite comes first."""
    values = norms.astype(np.float64)
    whole = float(np.square(values[np.isfinite(values)]).sum())
    order = sorted(np.flatnonzero(~missing).tolist(), key=lambda i: -values[i] if np.isfinite(values[i]) else -math.inf)
    return [(names[i], float(values[i]), float(values[i] ** 2 / whole) if whole > 0 else 0.0) for i in order[:WORST]]


def _layer_table(layers: Sequence[tuple[str, float, float]]) -> Table:
    rows = [
        (
            shorten(name, 40),
            number(norm),
            percent(share) if math.isfinite(share) else "–",
            "█" * round(20 * share) if share <= 1 else "×",
        )
        for name, norm, share in layers
    ]
    return Table("The largest norms at the last step", ("layer", "norm", "share", ""), rows, frozenset({1, 2}))
