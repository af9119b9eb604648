"""A backward pass that only measures, so that the pass after it knows all norms before its first gradient."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from gradclip.errors import NonFiniteGradientError, TargetError
from gradclip.nonfinite import Propagate, Raise, Skip, Zero
from gradclip.torch.in_backward.one_by_one import clip_one, measuring, one_tensor
from gradclip.torch.in_backward.step_result import cells_of_all
from gradclip.torch.plan import Plan

__all__ = ["FirstPass", "lookers"]

_ALIKE = 1e-2
"""The same gradient, computed twice, has the same norm to far less than this."""


def lookers(plan: Plan) -> list[Plan]:
    """Lay out for each parameter alone what measures as a method does, and clips nothing."""
    policy = plan.clipping.nonfinite
    look = measuring(plan.clipping, policy if isinstance(policy, Zero) else Propagate())
    return [one_tensor(plan, i, look) for i in range(len(plan.target.parameters))]


class FirstPass:
    """The norms of one backward pass, whose gradients are freed.

    Args:
        plan: the method over all parameters.
        looks: what measures each (:func:`lookers`).
    """

    def __init__(self, plan: Plan, looks: Sequence[Plan]) -> None:
        self._plan, self._looks = plan, looks
        self._each: dict[int, Tensor] = {}
        self.bad: list[str] = []
        """The parameters with a NaN or Inf."""

    def note(self, i: int) -> None:
        """Measure and free the gradient of parameter i.

        Raises:
            TargetError: it appears for the second time; the norms of two parts do not tell the norm of their sum.
        """
        if i in self._each:
            name = self._plan.target.names[i]
            raise TargetError(f"the gradient of {name!r} appeared twice inside measuring(): it measures one backward()")
        result, _ = clip_one(self._looks[i])
        self._each[i] = result._cells
        self._plan.target.parameters[i].grad = None

    def close(self) -> None:
        """End the pass.

        Raises:
            TargetError: no gradient appeared.
            NonFiniteGradientError: a NaN or Inf, under the policy that raises.
        """
        if not self._each:
            raise TargetError("no gradient appeared inside measuring(): call backward() in it")
        self.bad = [self._plan.target.names[i] for i, cells in sorted(self._each.items()) if not bool(cells.isfinite().all())]
        if self.bad and isinstance(self._plan.clipping.nonfinite, Raise):
            raise NonFiniteGradientError(self.bad)

    @property
    def doomed(self) -> bool:
        """Whether the step is to be dropped: a gradient is not finite, and the policy is to skip."""
        return bool(self.bad) and isinstance(self._plan.clipping.nonfinite, Skip)

    @property
    def cells(self) -> Tensor:
        """The norms of all cells, 0 where no gradient appeared."""
        return cells_of_all(self._plan, self._each)

    @property
    def present(self) -> list[bool]:
        """Which gradients appeared."""
        return [i in self._each for i in range(len(self._looks))]

    def of(self, i: int) -> Tensor:
        """Return the norms of the cells of parameter i, which may have had no gradient."""
        count = 1 if self._plan.partition.views is None else self._plan.partition.cells[i]
        return self._each[i] if i in self._each else torch.zeros(count, dtype=torch.float64)

    def check(self, cells: Tensor) -> None:
        """Warn if the second pass, which has these norms, was another one."""
        found, expected = cells, self.cells.to(cells)
        if not torch.allclose(
            found, expected, rtol=_ALIKE, atol=_ALIKE * float(expected.nan_to_num(0.0, 0.0).amax()), equal_nan=True
        ):
            warnings.warn(
                "the second backward() has other gradients than the one inside measuring(), so it was clipped by the norms of "
                "others: use the same batch and the same random numbers (dropout), best one graph, "
                "loss.backward(retain_graph=True) first and loss.backward() then",
                RuntimeWarning,
                stacklevel=2,
            )
