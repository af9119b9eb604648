"""A run file as numbers, read in one pass: its steps, the norms of its layers, its learning rates, its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradclip._cached import cached_property
from gradclip.diagnosis.readings.layer_groups import MOST_GROUPS, Group, groups_of
from gradclip.runs import ABSENT, Event, RankReport, Run, Steps, TensorInfo

__all__ = ["RunData", "Layers", "OptimizerRun", "read_run", "layers_of"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Layers:
    """One kind of norm, steps x layers; a layer is a tensor, or several where there are too many to show."""

    groups: tuple[Group, ...]
    steps: NDArray[np.int64]
    norms: NDArray[np.float32]
    """The root of the sum of squares of each layer's tensors; NaN or Inf where one of them was not finite."""
    missing: NDArray[np.bool_]
    """Where no tensor of the layer had a gradient."""

    @property
    def grouped(self) -> bool:
        """Whether a layer is more than a tensor."""
        return any(len(group.members) > 1 for group in self.groups)

    @property
    def nonfinite(self) -> NDArray[np.bool_]:
        """Where a NaN or Inf was."""
        return ~self.missing & ~np.isfinite(self.norms)


@dataclass(frozen=True, eq=False)
class OptimizerRun:
    """One optimizer's part of a run."""

    number: int
    tensors: int
    steps: Steps
    layers: Layers
    ratios: Layers | None
    """How far a step moved each layer, relative to its weights; None where that was not recorded."""
    rate_steps: NDArray[np.int64]
    rates: Floats
    """Steps x parameter groups."""
    tensor_infos: tuple[TensorInfo, ...] = ()
    """Names and shapes; a layer's members are places in it."""

    @cached_property
    def norms(self) -> Floats:
        """The norms before clipping that were measured, NaN and Inf included."""
        return self.steps.measured("norm")

    @property
    def first_rate(self) -> float:
        """The largest learning rate of the first step; 0 where none was recorded."""
        return float(np.nanmax(self.rates[0])) if self.rates.size else 0.0

    @property
    def bad(self) -> NDArray[np.bool_]:
        """The steps whose gradients held a NaN or Inf."""
        return self.steps.bad


@dataclass(frozen=True, eq=False)
class RunData:
    """A run, with all that findings and reports ask of it."""

    path: Path
    status: str
    meta: Mapping[str, Any]
    optimizers: tuple[OptimizerRun, ...]
    events: Sequence[tuple[int, int, tuple[Event, ...]]]
    """Step, optimizer, and what led to it."""
    ranks: RankReport | None = None
    """What is to be said of the ranks of a job of several processes."""

    @property
    def title(self) -> str:
        """What the run is called."""
        return str(self.meta.get("title") or self.path.stem)

    @property
    def length(self) -> int:
        """Steps of all optimizers."""
        return sum(len(optimizer.steps) for optimizer in self.optimizers)


def read_run(run: Run, most: int = MOST_GROUPS) -> RunData:
    """Read a run, which may still be written; of each optimizer, its tensors are at most so many layers."""
    optimizers = tuple(_optimizer(run, number, most) for number in run.optimizers)
    return RunData(run.path, run.status, run.meta, optimizers, run.events(), run.ranks)


def layers_of(run: Run, kind: str, optimizer: int, groups: tuple[Group, ...]) -> Layers:
    """Read one kind of norm, layer by layer, in portions that fit into memory."""
    width = sum(len(group.members) for group in groups)
    steps, rows = [np.zeros(0, np.int64)], [np.zeros((0, len(groups)), np.float32)]
    for at, raw in run.tensor_chunks(kind, optimizer):
        steps.append(at)
        rows.append(_together(raw[:, :width], groups))  # more tensors may have come since they were grouped
    norms = np.concatenate(rows)
    missing = norms == np.float32(ABSENT)
    norms[missing] = np.nan
    return Layers(groups, np.concatenate(steps), norms, missing)


def _optimizer(run: Run, number: int, most: int) -> OptimizerRun:
    tensors = run.tensors_of(number)
    groups = groups_of([tensor.name for tensor in tensors], most)
    return OptimizerRun(
        number,
        len(tensors),
        run.steps(number),
        layers_of(run, "norm", number, groups),
        _ratios(run, number, groups),
        *run.learning_rates(number),
        tensor_infos=tensors,
    )


def _together(raw: NDArray[np.float32], groups: Sequence[Group]) -> NDArray[np.float32]:
    """Rows of tensors as rows of layers, ``ABSENT`` where no tensor of a layer has a number."""
    if all(group.members == (i,) for i, group in enumerate(groups)):
        return raw
    order = [place for group in groups for place in group.members]
    starts = np.cumsum([0, *(len(group.members) for group in groups[:-1])])
    present = raw != np.float32(ABSENT)
    squares = np.square(np.where(present, raw, 0), dtype=np.float64)[:, order]
    norms = np.sqrt(np.add.reduceat(squares, starts, axis=1)).astype(np.float32)
    return np.where(np.logical_or.reduceat(present[:, order], starts, axis=1), norms, np.float32(ABSENT))


def _ratios(run: Run, number: int, groups: tuple[Group, ...]) -> Layers | None:
    if not {"weight_norm", "update_norm"} <= set(run.kinds(number)):
        return None
    weights, updates = (layers_of(run, kind, number, groups) for kind in ("weight_norm", "update_norm"))
    steps, of_weights, of_updates = np.intersect1d(weights.steps, updates.steps, assume_unique=True, return_indices=True)
    if not len(steps):
        return None
    with np.errstate(all="ignore"):
        ratios = updates.norms[of_updates] / weights.norms[of_weights]
    return Layers(groups, steps, ratios, updates.missing[of_updates] | weights.missing[of_weights])
