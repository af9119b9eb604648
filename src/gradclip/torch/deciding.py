"""Measure the gradients of one step and decide what each block is multiplied by; nothing is changed here."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from gradclip.backends import torch_eager as backend
from gradclip.backends.torch_norms import joined, vector
from gradclip.backends.torch_payload import Payload, PlainPayloads, values_of
from gradclip.errors import TargetError
from gradclip.rescales import Clamp
from gradclip.thresholds import Context
from gradclip.torch.plan import Plan

__all__ = ["Carry", "Decision", "Known", "State", "Step", "decide", "learning_rates", "weight_norms"]

_CPU = torch.device("cpu")

State: TypeAlias = Mapping[str, Tensor]
Carry: TypeAlias = Callable[[float | Tensor, Tensor | None], bool]
"""Take over one factor for all gradients, and the skip where they are not finite; False where that cannot be."""


@dataclass(frozen=True)
class Known:
    """What a step knows besides its gradients.

    ``lrs`` is the learning rate of each parameter, where an optimizer tells; ``carry`` multiplies by one factor that all
    gradients share, in place of a pass over them.
    """

    weights: Sequence[Tensor] | None = None
    lrs: Sequence[float] | None = None
    state: State | None = None
    number: int = 0
    carry: Carry | None = None


@dataclass(frozen=True)
class Step:
    """The gradients of one step, laid out for a method."""

    plan: Plan
    payloads: Sequence[Payload]
    known: Known

    @cached_property
    def device(self) -> torch.device:
        """Where the norms of all gradients come together."""
        if isinstance(self.payloads, PlainPayloads):
            return _CPU
        return next((values.device for values in values_of(self.payloads) if values is not None), _CPU)

    def measure(self, payloads: Sequence[Payload] | None = None) -> Tensor:
        """Return the norm of every cell of the gradients (or of other tensors laid out alike)."""
        chosen = self.payloads if payloads is None else payloads
        return backend.measure(chosen, self.plan.clipping.norm.p, self.plan.partition, self.device)


@dataclass(frozen=True)
class Decision:
    """What was measured, and what follows from it."""

    cells: Tensor
    factors: Tensor
    limits: Tensor | float
    state: State
    bounds: tuple[float, float] | None = None
    host: Sequence[float] | None = None
    """The factors, where the host decided and found every norm finite."""

    @property
    def binding(self) -> Tensor:
        """The limit of each block that exceeds it, inf for the others."""
        return torch.where(self.factors < 1, self.limits + torch.zeros_like(self.factors), math.inf)

    def asked(self, plan: Plan) -> Tensor:
        """What the host has to know to apply: each block's factor (or limit), or which tensors have one other than 1."""
        if plan.clamps:
            return self.cells
        if isinstance(plan.clipping.rescale, Clamp):
            return self.binding
        if plan.per_tensor:
            return self.factors
        changed = [(factors != 1).any().reshape(1) for factors in plan.split(self.factors)]
        return torch.cat([self.factors[:0], *changed])


def decide(step: Step) -> Decision:
    """Measure, and ask the threshold and the rescale.

    Raises:
        TargetError: the threshold needs weights or a learning rate that were not given.
    """
    threshold, rescale, state = step.plan.clipping.threshold, step.plan.clipping.rescale, step.known.state or {}
    cells = step.measure()
    if step.plan.clamps:
        low, high, state = threshold.bounds(cells, state, Context(step.known.number))
        return Decision(cells, cells.new_zeros(0), high, state, (float(low), float(high)))
    if step.plan.one_number and cells.device.type == "cpu":
        on_host = _decide_on_host(step, cells)
        if on_host is not None:
            return on_host
    norms = step.plan.block_norms(cells, step.payloads)
    if threshold.stateful and not state:
        state = threshold.init(norms)
    context = Context(step.known.number, weight_norms(step), learning_rates(step))
    limits, state = threshold.limits(norms, state, context)
    return Decision(cells, rescale.factors(norms, limits, step.known.number), limits, state)


def _decide_on_host(step: Step, cells: Tensor) -> Decision | None:
    """The same with Python numbers, which for one norm is much quicker; None where the norm is not finite."""
    norm = joined(cells.tolist(), step.plan.clipping.norm.p)
    if not math.isfinite(norm):
        return None
    limit, state = step.plan.clipping.threshold.limits(cells, step.known.state or {}, Context(step.known.number))
    factor = 1.0 if norm <= limit else float(limit / norm)  # Hard, and 1 where the limit is inf
    return Decision(cells, vector(array("d", (factor,))), limit, state, host=(factor,))


def weight_norms(step: Step) -> Tensor | None:
    """Return the norm of each block's weights, of the parameters that have a gradient."""
    if not step.plan.clipping.threshold.needs_weights:
        return None
    if step.known.weights is None:
        raise TargetError(f"{step.plan.clipping} needs the weights: pass parameters, or the weights with params=...")
    pairs = zip(step.known.weights, step.payloads, strict=True)
    weights = [Payload(None if grad.values is None else w.detach(), w.shape) for w, grad in pairs]
    return step.plan.block_norms(step.measure(weights), weights)


def learning_rates(step: Step) -> Tensor | None:
    """Return the largest learning rate in each block, of the parameters that have a gradient."""
    if not step.plan.clipping.threshold.needs_lr:
        return None
    if step.known.lrs is None:
        raise TargetError(f"{step.plan.clipping} needs the learning rate: use gradclip.attach(optimizer, ...)")
    pairs = zip(step.known.lrs, values_of(step.payloads), strict=True)
    moving = [0.0 if values is None else lr for lr, values in pairs]
    return step.plan.largest(torch.tensor(moving, dtype=torch.float64, device=step.device))
