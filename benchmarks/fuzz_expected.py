"""What the reference expects of a step of the fuzzer, and how near to that rounding can come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gradclip
from benchmarks.fuzz_cases import Case
from gradclip import Clipping
from gradclip.torch.targets import resolve
from tests import reference

__all__ = ["EPS", "NEAR", "Expected", "History", "Specification", "exact", "mismatch"]

EPS = {torch.float64: 2.0**-52, torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7,
       torch.complex64: 2.0**-23}  # fmt: skip
MOST = np.finfo(np.float64).max
LEAST = 1e-290
"""Below this the norms of a history, which are in float64, lose digits."""
NEAR = 3e-6
"""A norm that is so near to its limit may be on either side of it."""
PERCENTILE = 0.0102
"""How exact ``Percentile`` is: see its docstring."""


@dataclass
class History:
    """The norms of the blocks of one clipping at every step so far, and those of their weights."""

    norms: list[list[Any]] = field(default_factory=list)
    weights: list[list[Any]] = field(default_factory=list)


@dataclass
class Expected:
    """The gradients after a step, and what is allowed of them besides the rounding to their dtype."""

    grads: list[Any]
    loose: float
    """As a share of each element."""
    gain: float
    """What was rounded to a number of no full precision is scaled up by this much afterwards."""
    dropped: bool
    """A gradient of zeros may be gone."""
    first: Any
    """The reference's own words on the first clipping."""


class Specification:
    """The reference beside a run, step after step."""

    def __init__(self, case: Case, optimizer: torch.optim.Optimizer) -> None:
        self.case = case
        self.parameters = list(case.parameters.values())
        self.entries = resolve(case.parameters, optimizer).entries
        self.weights = [exact(p.detach()) for p in self.parameters]
        self.ends = [float(torch.finfo(p.dtype).max) for p in self.parameters]
        self.narrow = any(p.dtype != torch.float64 for p in self.parameters)
        self.histories = [History() for _ in case.clipping.stages]

    def step(self, grads: list[Any], there: list[bool], number: int) -> Expected | None:
        """Return what comes of finite gradients (zeros where there is none), None where rounding decides."""
        stages = self.case.clipping.stages
        expected = Expected(grads, 0.0, 1.0, False, None)
        for stage, history in zip(stages, self.histories, strict=True):
            found = self._stage(stage, history, expected.grads, there, number)
            if self._is_unclear(stage, found):
                return None
            if expected.first is not None:
                expected.gain *= max([1.0, *found.factors])
            expected.first = expected.first or found
            expected.loose += self._looseness(stage, found)
            expected.dropped |= stage.rescale.drops and 0 in found.factors
            last = stage is stages[-1]
            expected.grads = [g if last else rounded(g, p.dtype) for g, p in zip(found.grads, self.parameters, strict=True)]
        return expected

    def _stage(self, clipping: Clipping, history: History, grads: list[Any], there: list[bool], number: int) -> Any:
        kept = [i for i, is_there in enumerate(there) if is_there or not clipping.norm.mean]  # a mean is over what is there
        lrs = [self.case.lr if is_there else 0.0 for is_there in there]
        weights = [w if is_there else 0 * w for w, is_there in zip(self.weights, there, strict=True)]

        def says(method: Clipping, arrays: list[Any], limits: Any = None) -> Any:
            every = (arrays, weights, self.entries, lrs, self.ends)
            own, beside, entries, rates, ends = ([each[i] for i in kept] for each in every)
            return reference.clip(method, own, beside, entries=entries, step=number, lrs=rates, limits=limits, ends=ends)

        limits = None
        if clipping.threshold.stateful:
            look = Clipping(clipping.scope, clipping.norm, np.inf)
            history.norms.append([min(n, MOST) for n in says(look, grads).block_norms])
            history.weights.append(says(look, weights).block_norms)
            limits = self._limits(clipping.threshold, history)
        found = says(clipping, grads, limits)
        whole = [0 * g for g in grads]
        for i, grad in zip(kept, found.grads, strict=True):
            whole[i] = grad
        return replace(found, grads=whole)

    def _limits(self, rule: Any, history: History) -> Any:
        """What a rule that learns says of each block now, inf where the block has no gradient."""
        if isinstance(rule, gradclip.Minimum):
            return np.minimum.reduce([self._limits(each, history) for each in rule.rules])
        norms = np.array(history.norms)
        if isinstance(rule, gradclip.Stride):
            weights = np.maximum(np.array(history.weights), 1e-3)
            found = np.array([reference.stride(rule, n, w, self.case.lr)[-1] for n, w in zip(norms.T, weights.T, strict=True)])
        else:
            found = reference.limits(rule, norms)[-1]
        return np.where((norms[-1] == 0) | np.isnan(found) | (found > MOST), np.inf, found)

    def _is_unclear(self, clipping: Clipping, found: Any) -> bool:
        norms = [n for n in found.block_norms if n > 0]
        if clipping.threshold.stateful and any(n < LEAST for n in norms):
            return True
        if isinstance(clipping.threshold, gradclip.Percentile) and not all(1e-39 < n < 1e39 for n in norms):
            return True
        return clipping.rescale.drops and any(is_near(n, t) for n, t in zip(found.block_norms, found.limits, strict=True))

    def _looseness(self, clipping: Clipping, found: Any) -> float:
        """What sums lose to rounding, and a history in which they are subtracted."""
        loose = 3e-7 if self.narrow else 1e-13
        if clipping.threshold.stateful:
            loose = 2e-5 if self.narrow else 1e-9
        if isinstance(clipping.threshold, gradclip.Percentile):
            loose += PERCENTILE
        at_end = any(np.abs(g).max(initial=0) > end * 0.99999 for g, end in zip(found.grads, self.ends, strict=True))
        return loose + (3e-6 if clipping.rescale.raises and at_end else 0.0)  # nothing is scaled up to the very end


def exact(tensor: Tensor) -> Any:
    """Return a tensor's values in extended precision, dense."""
    tensor = tensor.detach()
    tensor = tensor.coalesce().to_dense() if tensor.is_sparse else tensor
    array = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64).resolve_conj().resolve_neg().numpy()
    return array.astype(np.clongdouble if tensor.is_complex() else np.longdouble)


def rounded(array: Any, dtype: torch.dtype) -> Any:
    """Return values as a dtype can hold them."""
    wide = np.asarray(array).astype(np.complex128 if dtype.is_complex else np.float64)
    return exact(torch.from_numpy(np.ascontiguousarray(wide).copy()).to(dtype))


def is_near(norm: Any, limit: float, share: float = NEAR) -> bool:
    """Return whether rounding may bring a norm to the other side of its limit."""
    return bool(abs(norm - limit) <= share * limit)


def mismatch(got: Any, want: Any, dtype: torch.dtype, loose: float, places: int = 1, gain: float = 1.0) -> str:
    """Say which element is not what it should be; nothing where all are.

    Args:
        got, want: arrays.
        dtype: what the result was rounded to.
        loose: how far from it an element may be, as a share.
        places: how many units in its last place more.
        gain: how many of the dtype's smallest numbers more.
    """
    info = torch.finfo(dtype)
    least = float(info.smallest_normal) * info.eps * (2.5 if dtype.is_complex else 1.6)  # rounded twice, both parts of a number
    bound = np.abs(want) * (places * EPS[dtype] + loose) + places * gain * least
    wrong = ~(np.abs(got - want) <= bound)
    at = int(np.argmax(wrong)) if wrong.any() else None
    return "" if at is None else f"{np.ravel(got)[at]!r} for {np.ravel(want)[at]!r}"


def is_full(arrays: Sequence[Any], dtypes: Sequence[torch.dtype]) -> bool:
    """Return whether the largest elements have the full precision of their dtypes, so that sums of them are what they were."""
    pairs = zip(arrays, dtypes, strict=True)
    return all(not a.any() or np.abs(a).max() > 1e3 * float(torch.finfo(d).smallest_normal) for a, d in pairs)
