"""What a way to carry out a method is: it decides, says what the host has to know, and acts.

To decide is to measure and to ask the threshold and the rescale. ``scaling.py`` and ``clamping.py`` have the ways there are:
gradients change there and in ``dropin.py``, nowhere else.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from gradclip.backends import Backend
from gradclip.clipping import Clipping
from gradclip.errors import TargetError
from gradclip.thresholds import Context
from gradclip.torch.layout import Layout
from gradclip.torch.step import Applied, Decision, StepInputs

__all__ = ["Strategy", "moving"]


class Strategy(ABC):
    """One way to change gradients.

    Args:
        clipping: the method.
        layout: its blocks over the parameters.
    """

    goes_by_shape: ClassVar[bool] = False
    """It matters which shapes the tensors had when they were laid out."""

    def __init__(self, clipping: Clipping, layout: Layout) -> None:
        self.clipping, self.layout = clipping, layout
        self.threshold, self.rescale, self.p = clipping.threshold, clipping.rescale, clipping.norm.p
        self._needs_context = self.threshold.needs_weights or self.threshold.needs_lr
        self._spans_tensors = clipping.scope.spans_tensors
        self.in_one_pass = False
        """The limits are known before anything is measured, so that ``at_once`` is worth trying."""

    def at_once(self, backend: Backend, step: StepInputs) -> tuple[Decision, Applied] | None:
        """Measure and change in one pass; None, and nothing is changed, where the backend takes two.

        A NaN or Inf is found on the way, when other blocks have been clipped already: for policies that do not mind.
        """
        return None

    def decide(self, backend: Backend, step: StepInputs) -> Decision:
        """Measure, and ask the threshold and the rescale.

        Raises:
            TargetError: the threshold needs weights or a learning rate that were not given.
        """
        weights = self._weights(backend, step) if self.threshold.needs_weights else None
        cells, *beside = backend.norms_beside([] if weights is None else [weights], self.p)
        return self._decided(backend, step, cells, None if weights is None else self.layout.block_norms(weights, beside[0]))

    def _decided(
        self, backend: Backend, step: StepInputs, cells: Tensor, weight_norms: Tensor | None = None, most: float = math.inf
    ) -> Decision:
        """Ask the threshold and the rescale; a norm above ``most`` counts as that."""
        norms = self.layout.block_norms(backend, cells)
        if most < math.inf:
            norms = norms.clamp(max=most)
        state = step.state or (self.threshold.init(norms) if self.threshold.stateful else {})
        context = self._context(backend, step, weight_norms) if self._needs_context else Context(step.number)
        limits, state = self.threshold.limits(norms, state, context)
        total = norms.reshape(()) if self.layout.one_block else None
        checked = norms if self.layout.one_block else torch.cat([cells, norms]) if self._spans_tensors else None
        return Decision(cells, self.rescale.factors(norms, limits, step.number), limits, state, total, checked=checked)

    @abstractmethod
    def question(self, decision: Decision) -> Tensor:
        """Return what the host has to know to act: a vector, read together with whether all is finite."""

    @abstractmethod
    def act(self, backend: Backend, decision: Decision, answer: Sequence[float] | None, step: StepInputs) -> Applied:
        """Change the gradients in place.

        Args:
            backend: the gradients.
            decision: what is to be done.
            answer: what the host was told, so that what needs no change is not touched; None to do everything without asking.
            step: the same as ``decide`` had.
        """

    def beyond(self, backend: Backend, decision: Decision, step: StepInputs) -> tuple[Decision, Applied]:
        """Decide again and act, where a norm is beyond float64 though every element is finite: it counts as the largest number.

        What has a finite norm may have been changed ``at_once``.
        """
        decision = self._decided_beyond(backend, decision, step)
        return decision, self.act(backend, decision, self.question(decision).tolist(), step)

    def _decided_beyond(self, backend: Backend, decision: Decision, step: StepInputs) -> Decision:
        weights = self._weights(backend, step) if self.threshold.needs_weights else None
        norms = None if weights is None else self.layout.block_norms(weights, weights.norms(self.p))
        return self._decided(backend, step, decision.cells, norms, torch.finfo(decision.cells.dtype).max)

    def carried(self, factors: Tensor | Sequence[float], finite: Tensor | None, step: StepInputs) -> bool:
        """Hand one factor that all gradients share to somebody who multiplies by it anyway; False where there is nobody.

        Args:
            factors: of the blocks.
            finite: whether every gradient is, where that has not been asked: the step is to be dropped if not.
            step: knows who.
        """
        return False

    def dropped(self, answer: Sequence[float]) -> list[int]:
        """Return the gradients that are to be None: of zeros an optimizer that has momentum would still be moved."""
        return []

    def _context(self, backend: Backend, step: StepInputs, weight_norms: Tensor | None) -> Context:
        """What a rule may know besides the norms, of the parameters that have a gradient."""
        lrs = None
        if self.threshold.needs_lr:
            if step.lrs is None:
                raise TargetError(f"{self.clipping} needs the learning rate: use gradclip.attach(optimizer, ...)")
            lrs = self._learning_rates(backend, step.lrs)
        return Context(step.number, weight_norms, lrs)

    def _weights(self, backend: Backend, step: StepInputs) -> Backend:
        """The weights of the parameters that have a gradient."""
        if step.weights is None:
            raise TargetError(f"{self.clipping} needs the weights: pass parameters, or the weights with params=...")
        own = [w if there else None for w, there in zip(step.weights, backend.may_be_present, strict=True)]
        return backend.like(own) or self.layout.backend_for(own)

    def _learning_rates(self, backend: Backend, lrs: Sequence[float]) -> Tensor:
        return self.layout.largest(moving(backend, lrs))


def moving(backend: Backend, lrs: Sequence[float]) -> Tensor:
    """Return the learning rate of each tensor, 0 where there is none."""
    each = torch.tensor(lrs, dtype=torch.float64, device=backend.present.device)
    return torch.where(backend.present, each, 0.0).to(backend.device)
