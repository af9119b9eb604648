"""The pipeline on one gradient after another, and one result of them all: what this folder uses of its inside is here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from gradclip.backends.torch_eager import combine
from gradclip.clipping import Clipping
from gradclip.nonfinite import Nonfinite
from gradclip.norms import Norm
from gradclip.rescales import Hard
from gradclip.result import ClipResult
from gradclip.scopes import Global
from gradclip.thresholds import Constant
from gradclip.torch.deciding import Known, State
from gradclip.torch.pipeline import run
from gradclip.torch.plan import Plan
from gradclip.torch.targets import Target

__all__ = ["Rates", "Results", "as_vector", "clip_list", "clip_one", "joined", "measuring", "over_one", "shares"]

Rates: TypeAlias = Callable[[int], float] | None
"""The learning rate of each parameter, by its place."""

Results: TypeAlias = Mapping[int, ClipResult]
"""What was done to each gradient that appeared in a step, by its parameter's place."""


def over_one(target: Target, i: int, clipping: Clipping) -> Plan:
    """Lay a method out over parameter i alone."""
    return Plan(clipping, Target((target.parameters[i],), (target.entries[i],)))


def measuring(norm: Norm, nonfinite: Nonfinite) -> Clipping:
    """Return the method that measures all tensors together and clips nothing."""
    return Clipping(Global(), norm, Constant(math.inf), Hard(), nonfinite)


def clip_list(
    plan: Plan,
    grads: list[Tensor | None],
    weights: Sequence[Tensor] | None = None,
    rates: Sequence[float] | None = None,
    state: State | None = None,
    step: int = 0,
) -> tuple[ClipResult, State | None]:
    """Clip gradients in a list; return what was done and the threshold's next state, None where it learnt nothing."""
    result, after = run(plan, grads, grads.__setitem__, Known(weights, rates, state, step))
    return result, after if after and after is not state else None


def clip_one(
    plan: Plan, rate: float | None = None, state: State | None = None, step: int = 0
) -> tuple[ClipResult, State | None]:
    """Clip the gradient of a plan's one parameter."""
    (parameter,) = plan.target.parameters
    grads = [parameter.grad]
    done = clip_list(plan, grads, [parameter], None if rate is None else [rate], state, step)
    parameter.grad = grads[0]
    return done


def joined(plan: Plan, results: Results, limits: Tensor | float, factors: Tensor) -> ClipResult:
    """Return one result of a step, given the limits and the factors of all blocks."""
    before = as_vector({i: result.tensor_norms[0] for i, result in results.items()}, plan.target)
    after = as_vector({i: result.clipped_tensor_norms[0] for i, result in results.items() if not result.skipped}, plan.target)
    inside = [first is not None for first in plan.partition.first]
    sizes = [p.numel() if i in results else 0 for i, p in enumerate(plan.target.parameters)]
    part = before.new_tensor(shares(plan.clipping.norm, sizes, inside))
    kept = torch.tensor(inside, device=before.device)
    return ClipResult(
        plan.target.names,
        limits,
        factors,
        clipped=_flags([result.clipped for result in results.values()]).any(),
        finite=_flags([result.finite for result in results.values()]).all(),
        nonfinite_names=tuple(dict.fromkeys(name for i in sorted(results) for name in results[i].nonfinite_names)),
        skipped=all(result.skipped for result in results.values()),
        _cells=before,
        _cells_after=after.to(before),
        _total=lambda norms: combine((norms * part)[kept], plan.clipping.norm.p, None, 1).reshape(()),
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
