"""The pipeline on one gradient after another, and one result of them all: what this folder uses of its inside is here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from gradclip.backends import combine
from gradclip.clipping import Clipping
from gradclip.nonfinite import Nonfinite
from gradclip.norms import Norm
from gradclip.rescales import Hard
from gradclip.result import ClipResult
from gradclip.scopes import Global
from gradclip.thresholds import Constant
from gradclip.torch.pipeline import GradientList, run_stage
from gradclip.torch.plan import Stage
from gradclip.torch.step import State, StepInputs
from gradclip.torch.targets import Target

__all__ = ["Rates", "Results", "as_vector", "clip_list", "clip_one", "joined", "measuring", "over_one", "shares"]

Rates: TypeAlias = Callable[[int], float] | None
"""The learning rate of each parameter, by its place."""

Results: TypeAlias = Mapping[int, ClipResult]
"""What was done to each gradient that appeared in a step, by its parameter's place."""


def over_one(target: Target, i: int, clipping: Clipping) -> Stage:
    """Lay a method out over parameter i alone."""
    return Stage(clipping, Target((target.parameters[i],), (target.entries[i],)))


def measuring(norm: Norm, nonfinite: Nonfinite) -> Clipping:
    """Return the method that measures all tensors together and clips nothing."""
    return Clipping(Global(), norm, Constant(math.inf), Hard(), nonfinite)


def clip_list(
    stage: Stage,
    grads: list[Tensor | None],
    weights: Sequence[Tensor] | None = None,
    rates: Sequence[float] | None = None,
    state: State | None = None,
    step: int = 0,
) -> tuple[ClipResult, State | None]:
    """Clip gradients in a list; return what was done and the threshold's next state, None where it learnt nothing."""
    with torch.no_grad():
        result, after = run_stage(stage, GradientList(grads), StepInputs(weights, rates, state, step))
    return result, after if after and after is not state else None


def clip_one(
    stage: Stage, rate: float | None = None, state: State | None = None, step: int = 0
) -> tuple[ClipResult, State | None]:
    """Clip the gradient of a stage's one parameter."""
    (parameter,) = stage.target.parameters
    grads = [parameter.grad]
    done = clip_list(stage, grads, [parameter], None if rate is None else [rate], state, step)
    parameter.grad = grads[0]
    return done


def joined(stage: Stage, results: Results, limits: Tensor | float, factors: Tensor) -> ClipResult:
    """Return one result of a step, given the limits and the factors of all blocks."""
    target, layout, norm = stage.target, stage.layout, stage.clipping.norm
    before = as_vector({i: result.tensor_norms[0] for i, result in results.items()}, target)
    left = {i: result.clipped_tensor_norms[0] for i, result in results.items() if not result.skipped}
    after = as_vector(left, target).to(before)
    sizes = [p.numel() if i in results else 0 for i, p in enumerate(target.parameters)]
    part = before.new_tensor(shares(norm, sizes, layout.included))
    kept = layout.included_tensors(before)
    return ClipResult(
        names=target.names,
        norm=combine((before * part)[kept], norm.p, None, 1).reshape(()),
        clipped_norm=combine((after * part)[kept], norm.p, None, 1).reshape(()),
        tensor_norms=before,
        clipped_tensor_norms=after,
        limits=limits,
        factors=factors,
        clipped=_flags([result.clipped for result in results.values()]).any(),
        finite=_flags([result.finite for result in results.values()]).all(),
        nonfinite_names=tuple(dict.fromkeys(name for i in sorted(results) for name in results[i].nonfinite_names)),
        skipped=all(result.skipped for result in results.values()),
    )


def as_vector(norms: Mapping[int, Tensor], target: Target) -> Tensor:
    """Return the norms of all parameters as one vector, 0 where there is none."""
    like = next(iter(norms.values()), torch.zeros(()))
    return torch.stack([norms[i].to(like) if i in norms else torch.zeros_like(like) for i in range(len(target.parameters))])


def shares(norm: Norm, sizes: Sequence[int], blocks: Sequence[int | None]) -> list[float]:
    """Return what each tensor's norm is multiplied by, so that the p-norm of the products over a block is the block's norm.

    That is 1; for a mean ``(m / M)^(1/p)``, where the tensor has m of its block's M elements.
    """
    totals: Counter[int | None] = Counter()
    for size, block in zip(sizes, blocks, strict=True):
        totals[block] += size
    each = zip(sizes, blocks, strict=True)
    return [(size / max(totals[block], 1)) ** (1 / norm.p) if norm.mean else 1.0 for size, block in each]


def _flags(flags: Sequence[Tensor | bool]) -> Tensor:
    device = torch.as_tensor(flags[0]).device
    return torch.stack([torch.as_tensor(flag, device=device) for flag in flags])
