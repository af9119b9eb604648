"""Two backwards for one step: the first only measures, so that the second knows every factor from its first gradient on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from gradclip._arrays import Array
from gradclip.clipping import Clipping
from gradclip.errors import TargetError
from gradclip.nonfinite import Propagate
from gradclip.norms import Norm
from gradclip.rescales import Rescale
from gradclip.result import ClipResult
from gradclip.scopes import Global
from gradclip.thresholds import Constant
from gradclip.torch.in_backward.one_by_one import Rates, Results, as_vector, clip_list, clip_one, measuring, over_one, shares
from gradclip.torch.in_backward.tensor_by_tensor import goes_tensor_by_tensor
from gradclip.torch.plan import Stage
from gradclip.torch.step import State
from gradclip.torch.targets import Target

__all__ = ["TwoPasses", "check_whole_tensors"]

_ALIKE = 1e-2
"""The same gradient, computed twice, has the same norm to far less than this."""


def check_whole_tensors(stage: Stage) -> None:
    """Refuse a method that two passes do not help: it does more to a tensor than to multiply it by a number."""
    parts = stage.layout.units is not None or stage.clipping.scope.per_element or stage.clipping.rescale.elementwise
    if parts:
        raise TargetError(
            f"{stage.clipping} looks at other tensors to clip parts of one: use gradclip.Clipper after backward()"
        )


class TwoPasses:
    """One step: measure every gradient, decide, and clip the same gradients when they appear again.

    Args:
        stage: the method over all parameters; of one that goes tensor by tensor only the policy for NaN and Inf is carried out.
        rates: the learning rates, where the threshold needs them.
        history: the threshold's, as a ``Clipper`` keeps it; empty before the first step. What is learnt is written into it.
    """

    def __init__(self, stage: Stage, rates: Rates, history: dict[str, Tensor]) -> None:
        norm, policy = stage.clipping.norm, stage.clipping.nonfinite
        self._stage = Stage(measuring(norm, policy), stage.target) if goes_tensor_by_tensor(stage.clipping) else stage
        self._look = measuring(norm, policy if policy.word == "zero" else Propagate())
        self._target, self._rates, self._history = stage.target, rates, history
        self._norms: dict[int, Tensor] = {}
        self._learnt: State | None = None
        self.result: ClipResult
        """What was decided: the limits, the factors, and whether the step is skipped."""

    def measure(self, i: int) -> None:
        """Measure and free the gradient of parameter i, once: the norms of two parts do not tell the norm of their sum."""
        if i in self._norms:
            name = self._target.names[i]
            raise TargetError(f"the gradient of {name!r} appeared twice inside measuring(): it measures one backward()")
        self._norms[i] = self._take(i).tensor_norms[0]

    def decide(self, step: int) -> None:
        """End the first pass; a NaN or Inf raises, or skips the step, by the method's policy.

        What multiplies whole tensors sees nothing of a gradient but its norm, so one number with that norm stands for it.
        """
        if not self._norms:
            raise TargetError("no gradient appeared inside measuring(): call backward() in it")
        parameters, method = self._target.parameters, self._stage.clipping
        sizes = [p.numel() if i in self._norms else 0 for i, p in enumerate(parameters)]
        part = shares(method.norm, sizes, self._stage.layout.first)

        def number(i: int, norm: Tensor) -> Tensor:
            return (norm * part[i]).reshape(1).to(parameters[0].device)

        every = range(len(parameters))
        grads = [number(i, self._norms[i]) if i in self._norms else None for i in every]
        weights = [number(i, self._weight(i)) for i in every] if method.threshold.needs_weights else None
        rates = [self._rates(i) for i in every] if self._rates else None
        numbers = Target(parameters, tuple(replace(entry, shape=(1,)) for entry in self._target.entries))
        stage = Stage(replace(method, norm=Norm(method.norm.p)), numbers)
        self.result, self._learnt = clip_list(stage, grads, weights, rates, self._history, step)

    def clip(self, i: int, step: int) -> ClipResult:
        """Clip the gradient of parameter i, or free it if the step is skipped."""
        if self.result.skipped:
            return replace(self._take(i), finite=False, nonfinite_names=self.result.nonfinite_names, skipped=True)
        first, method = self._stage.layout.first[i], self._stage.clipping
        factor = 1.0 if first is None else self.result.factors[first]
        times = Clipping(Global(), method.norm, Constant(1.0), _Times(factor), method.nonfinite)
        result, _ = clip_one(over_one(self._target, i, times))
        if method.rescale.drops and factor == 0:  # zeros would still move an optimizer that has momentum
            self._target.parameters[i].grad = None
        return result

    def end_step(self, results: Results) -> tuple[Tensor | float, Tensor]:
        """Return the limits and the factors of all blocks; a step with a NaN or Inf teaches nothing."""
        if self._learnt and all(bool(result.tensor_norms.isfinite().all()) for result in results.values()):
            self._history.update(self._learnt)
        return self.result.limits, self.result.factors

    def check(self, norms: Tensor) -> None:
        """Warn if the second pass, which had these norms, was another one."""
        expected = as_vector(self._norms, self._target).to(norms)
        most = float(expected.nan_to_num(0.0, 0.0).amax())
        if not self.result.skipped and not torch.allclose(norms, expected, rtol=_ALIKE, atol=_ALIKE * most, equal_nan=True):
            warnings.warn(
                "the second backward() has other gradients than the one inside measuring(), so it was clipped by the norms of "
                "others: use the same batch and the same random numbers (dropout), best one graph, "
                "loss.backward(retain_graph=True) first and loss.backward() then",
                RuntimeWarning,
                stacklevel=2,
            )

    def _take(self, i: int) -> ClipResult:
        result, _ = clip_one(over_one(self._target, i, self._look))
        self._target.parameters[i].grad = None
        return result

    def _weight(self, i: int) -> Tensor:
        look = over_one(self._target, i, measuring(self._stage.clipping.norm, Propagate()))
        return clip_list(look, [self._target.parameters[i].detach().clone()])[0].tensor_norms[0]


@dataclass(frozen=True)
class _Times(Rescale):
    """Multiply by a factor that is known."""

    factor: Tensor | float
    formula: ClassVar[str] = "f"
    raises: ClassVar[bool] = True

    def phi(self, norms: Array, limits: Array | float) -> Array:
        return norms * 0 + torch.as_tensor(self.factor).to(norms)  # NaN stays NaN
