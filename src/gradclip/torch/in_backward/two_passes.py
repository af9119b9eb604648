"""Two backwards for one step: the first only measures, so that the second knows every factor from its first gradient on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from gradclip._arrays import Array
from gradclip.clipping import Clipping
from gradclip.errors import NonFiniteGradientError, TargetError
from gradclip.nonfinite import Propagate, Raise, Skip, Zero
from gradclip.norms import Norm
from gradclip.rescales import Clamp, Drop, Rescale
from gradclip.result import ClipResult
from gradclip.scopes import Global
from gradclip.thresholds import Constant
from gradclip.torch.deciding import Known, State
from gradclip.torch.in_backward.one_by_one import Rates, Results, as_vector, clip_list, clip_one, measuring, over_one, shares
from gradclip.torch.plan import Plan
from gradclip.torch.targets import Target

__all__ = ["FirstPass", "TwoPasses"]

_ALIKE = 1e-2
"""The same gradient, computed twice, has the same norm to far less than this."""


class FirstPass:
    """The norms of one backward pass, whose gradients are freed."""

    def __init__(self, plan: Plan) -> None:
        self._target, self._policy = plan.target, plan.clipping.nonfinite
        self._look = measuring(plan.clipping.norm, self._policy if isinstance(self._policy, Zero) else Propagate())
        self.norms: dict[int, Tensor] = {}
        """Of the gradients that appeared, by the parameter's place."""
        self.skipped: tuple[str, ...] = ()
        """The parameters with a NaN or Inf, for which the whole step is skipped."""

    def take(self, i: int) -> ClipResult:
        """Measure and free the gradient of parameter i."""
        result, _ = clip_one(over_one(self._target, i, self._look))
        self._target.parameters[i].grad = None
        return result

    def add(self, i: int) -> None:
        """Take the gradient of parameter i, once: the norms of two parts do not tell the norm of their sum."""
        if i in self.norms:
            name = self._target.names[i]
            raise TargetError(f"the gradient of {name!r} appeared twice inside measuring(): it measures one backward()")
        self.norms[i] = self.take(i).tensor_norms[0]

    def close(self) -> None:
        """End the pass; raise if there was none, or a NaN or Inf that the policy raises for."""
        if not self.norms:
            raise TargetError("no gradient appeared inside measuring(): call backward() in it")
        finite = as_vector(self.norms, self._target).isfinite().tolist()
        bad = tuple(name for name, fine in zip(self._target.names, finite, strict=True) if not fine)
        if bad and isinstance(self._policy, Raise):
            raise NonFiniteGradientError(bad)
        self.skipped = bad if isinstance(self._policy, Skip) else ()

    def check(self, norms: Tensor) -> None:
        """Warn if the second pass, which has these norms, was another one."""
        expected = as_vector(self.norms, self._target).to(norms)
        most = float(expected.nan_to_num(0.0, 0.0).amax())
        if not torch.allclose(norms, expected, rtol=_ALIKE, atol=_ALIKE * most, equal_nan=True):
            warnings.warn(
                "the second backward() has other gradients than the one inside measuring(), so it was clipped by the norms of "
                "others: use the same batch and the same random numbers (dropout), best one graph, "
                "loss.backward(retain_graph=True) first and loss.backward() then",
                RuntimeWarning,
                stacklevel=2,
            )


class TwoPasses:
    """Methods whose blocks span tensors: multiply each gradient by its block's factor, decided by the norms of a first pass."""

    def __init__(self, plan: Plan, rates: Rates) -> None:
        if not plan.per_tensor or isinstance(plan.clipping.rescale, Clamp):
            raise TargetError(
                f"{plan.clipping} looks at other tensors to clip parts of one: use gradclip.Clipper after backward()"
            )
        self._method, self._target, self._first, self._rates = plan.clipping, plan.target, plan.partition.first, rates
        numbers = Target(plan.target.parameters, tuple(replace(entry, shape=(1,)) for entry in plan.target.entries))
        self._numbers = Plan(replace(plan.clipping, norm=Norm(plan.clipping.norm.p)), numbers)
        self._decided: tuple[ClipResult, State | None] | None = None
        self.state: State = {}
        """The threshold's, as a ``Clipper`` keeps it; empty before the first step."""

    def decide(self, norms: Mapping[int, Tensor], step: int) -> None:
        """Decide by the norms of the gradients that there will be.

        A method that multiplies whole tensors sees nothing of one but its norm, so one number with that norm stands for it.
        """
        parameters = self._target.parameters
        sizes = [p.numel() if i in norms else 0 for i, p in enumerate(parameters)]
        part = shares(self._method.norm, sizes, self._first)

        def number(i: int, norm: Tensor) -> Tensor:
            return (norm * part[i]).reshape(1).to(parameters[0].device)

        grads = [number(i, norms[i]) if i in norms else None for i in range(len(parameters))]
        weights = None
        if self._method.threshold.needs_weights:
            weights = [number(i, self._weight(i)) for i in range(len(parameters))]
        rates = None if self._rates is None else [self._rates(i) for i in range(len(parameters))]
        self._decided = clip_list(self._numbers, grads, Known(weights, rates, self.state, step))

    def forget(self) -> None:
        """Forget what was decided, if nothing came of it."""
        self._decided = None

    def clip(self, i: int, step: int) -> ClipResult:
        """Clip the gradient of parameter i; raise if nothing was measured before."""
        if self._decided is None:
            raise TargetError(
                f"{self._method} needs the norms of all gradients, which are known only after the last one: run backward() "
                "twice, first inside `with in_backward.measuring():`, or use a method that goes tensor by tensor, such as "
                '"agc:0.01"'
            )
        first = self._first[i]
        factor = 1.0 if first is None else self._decided[0].factors[first]
        times = Clipping(Global(), self._method.norm, Constant(1.0), _Times(factor), self._method.nonfinite)
        result, _ = clip_one(over_one(self._target, i, times))
        if isinstance(self._method.rescale, Drop) and factor == 0:  # zeros would still move an optimizer that has momentum
            self._target.parameters[i].grad = None
        return result

    def end_step(self, results: Results, norms: Tensor) -> tuple[Tensor | float, Tensor]:
        """Return the limits and factors of all blocks; a step with a NaN or Inf teaches nothing."""
        assert self._decided is not None
        (decided, state), self._decided = self._decided, None
        if state is not None and bool(norms.isfinite().all()):
            self.state = state
        return decided.limits, decided.factors

    def _weight(self, i: int) -> Tensor:
        look = over_one(self._target, i, measuring(self._method.norm, Propagate()))
        return clip_list(look, [self._target.parameters[i].detach().clone()], Known())[0].tensor_norms[0]


@dataclass(frozen=True)
class _Times(Rescale):
    """Multiply by a factor that is known."""

    factor: Tensor | float
    formula: ClassVar[str] = "f"

    def phi(self, norms: Array, limits: Array | float, step: int | Array = 0) -> Array:
        return norms * 0 + torch.as_tensor(self.factor).to(norms)  # NaN stays NaN
