"""What the labs share: an arm of an experiment, the curves it leaves, and the lab itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

from gradclip.clipping import Clipping

if TYPE_CHECKING:
    from gradclip.diagnosis.readings.run_data import OptimizerRun
    from gradclip.report.charts import Chart
    from gradclip.report.table import Table

__all__ = ["UNCLIPPED", "Arm", "Curves", "Lab", "Pair", "Values", "grouped", "last_mean", "number", "paired"]

UNCLIPPED = ""
"""No clipping at all."""


@dataclass(frozen=True)
class Arm:
    """One run of an experiment: a model, a learning rate and a clipping method (the spelling of a recipe)."""

    model: str
    lr: float
    clip: str = UNCLIPPED
    run: int = 0
    """Which of several runs that differ in the seed alone, from 1; 0 where there is one."""

    @property
    def clips(self) -> bool:
        """Whether this arm clips at all."""
        return bool(self.clip)

    @property
    def setting(self) -> str:
        """What the clipped and the unclipped arm of a comparison have in common."""
        return f"{self.model} at lr {self.lr:g}" + (f", run {self.run}" if self.run else "")

    @property
    def method(self) -> str:
        """The clipping, in words for a table."""
        return self.clip if self.clips else "no clipping"

    @property
    def how(self) -> str:
        """The clipping, in words for a sentence.

        >>> Arm("LSTM", 20).how, Arm("LSTM", 20, "global_norm:0.25").how
        ('without clipping', 'with global_norm:0.25')
        """
        return f"with {self.clip}" if self.clips else "without clipping"

    @property
    def name(self) -> str:
        """The arm in words.

        >>> Arm("LSTM", 20).name, Arm("LSTM", 20, "global_norm:0.25").name
        ('LSTM at lr 20, no clipping', 'LSTM at lr 20, global_norm:0.25')
        """
        return f"{self.setting}, {self.method}"


@dataclass
class Curves:
    """What one arm left behind, a value a step."""

    arm: Arm
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    clipped_norms: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    clipped: list[bool] = field(default_factory=list)
    also: dict[str, list[float]] = field(default_factory=dict)
    """What else a lab measures, by name, a value a step."""
    note: str = ""
    """Why the arm stopped before its last step; empty if it did not."""
    path: Path | None = field(default=None, compare=False)
    """The run file that the norms were read from."""
    optimizer: OptimizerRun | None = field(default=None, compare=False, repr=False)
    """All that is in it."""

    @property
    def share_clipped(self) -> float:
        """The share of the steps that clipping changed."""
        return fmean(self.clipped) if self.clipped else 0.0


Key = TypeVar("Key")


@dataclass(frozen=True)
class Pair:
    """The same setting with and without clipping."""

    without: Curves
    clipped: Curves


def paired(runs: Sequence[Curves]) -> list[Pair]:
    """Match each clipped arm with the unclipped arm of the same setting."""
    without = {run.arm.setting: run for run in runs if not run.arm.clips}
    return [Pair(without[run.arm.setting], run) for run in runs if run.arm.clips and run.arm.setting in without]


def grouped(runs: Sequence[Curves], by: Callable[[Arm], Key]) -> dict[Key, list[Curves]]:
    """The runs of each kind of arm, the kinds in the order in which they first come."""
    groups: dict[Key, list[Curves]] = {}
    for run in runs:
        groups.setdefault(by(run.arm), []).append(run)
    return groups


def last_mean(values: Sequence[float], last: int = 50) -> float:
    """The mean of the last values: a score less noisy than the last one alone.

    >>> last_mean([9.0, 1.0, 3.0], last=2)
    2.0
    """
    return fmean(values[-last:]) if values else math.nan


def number(value: float) -> str:
    """Three digits for a table; what is not a number is said to have diverged.

    >>> number(2.17342), number(12345.6), number(float("nan"))
    ('2.17', '12,346', 'diverged')
    """
    if not math.isfinite(value):
        return "diverged"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:#.3g}".rstrip(".")


Values = Mapping[str, float]
Train = Callable[[Arm, int, int], Iterator[Values]]
Runs = Sequence[Curves]


def _nothing(runs: Runs) -> Sequence[Chart]:
    return ()


def _every(arm: Arm) -> bool:
    return True


@dataclass(frozen=True)
class Lab:
    """An experiment: what it asks, its arms, how one arm is trained, and how the runs are judged."""

    name: str
    title: str
    about: str
    """What is trained on what, and what to look at, in a few sentences."""
    arms: tuple[Arm, ...]
    train: Train
    """``train(arm, steps, seed)`` runs one arm; after each step it yields the ``loss`` and what else is to be kept."""
    steps: int
    score: Callable[[Curves], float]
    """The number an arm is judged by; lower is better."""
    score_name: str
    """What that number is, with its unit."""
    loss_name: str = "loss"
    """The name of the loss, with its unit."""
    columns: Mapping[str, Callable[[Curves], str]] = field(default_factory=dict)
    """Columns that the table of arms has besides the usual ones, by name."""
    table: Callable[[Runs], Table] | None = None
    """The table, where one row per arm is not the answer."""
    pictures: Callable[[Runs], Sequence[Chart]] = _nothing
    """The lab's own pictures; they come before the curves of the arms."""
    judge: Callable[[Runs], str] | None = None
    """The verdict, where the question is not what clipping did to the score."""
    detailed: Callable[[Arm], bool] = _every
    """Whose loss and gradient norms have a place on the page."""

    def arms_with(self, *, clip: str | None = None, lr: float | None = None) -> tuple[Arm, ...]:
        """The arms, with another method where they clip and another learning rate; each different arm once."""

        def changed(arm: Arm) -> Arm:
            arm = arm if lr is None else replace(arm, lr=lr)
            return replace(arm, clip=str(Clipping.parse(clip))) if clip and arm.clips else arm

        return tuple(dict.fromkeys(map(changed, self.arms)))
