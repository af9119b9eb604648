"""One thing that updates parameters, an optimizer or a hand-written loop, and what is measured of it."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradclip.backends import norms_of_each, values_of
from gradclip.runs.schema import ABSENT, TensorInfo
from gradclip.watch.record.parameter_names import parameter_names

__all__ = ["Stream", "grad_norms"]


class Stream:
    """The parameters of one optimizer (or of a loop without one), in a fixed order.

    Args:
        number: which optimizer of the run it is.
        parameters: its parameters; held weakly, a run must not keep a model alive.
        optimizer: None for a hand-written update.
        names: names that are known already, by the parameter's identity.
    """

    def __init__(
        self,
        number: int,
        parameters: Sequence[Tensor],
        optimizer: torch.optim.Optimizer | None = None,
        names: Mapping[int, str] | None = None,
    ) -> None:
        self.number = number
        self.step = 0
        self._references: list[weakref.ref[Tensor]] = []
        self._place: dict[int, int] = {}
        self._names = names or {}
        self._optimizer = None if optimizer is None else weakref.ref(optimizer)
        self._before: list[Tensor | None] | None = None
        self.listed = 0
        """How many parameters the optimizer had when they were last looked at, the same one twice included."""
        self.adopt(parameters)

    def __len__(self) -> int:
        return len(self._references)

    def adopt(self, parameters: Sequence[Tensor]) -> None:
        """Take up the parameters that are new: in place of those that are gone where as many are, else behind them all."""
        new = list({id(p): p for p in parameters if not self.has(p)}.values())
        gone = [place for place, reference in enumerate(self._references) if reference() is None]
        if len(new) != len(gone):
            gone = list(range(len(self), len(self) + len(new)))
            self._references += map(weakref.ref, new)
        for place, parameter in zip(gone, new, strict=True):
            self._references[place] = weakref.ref(parameter)
            self._place[id(parameter)] = place

    def follow(self, parameters: Sequence[Tensor]) -> None:
        """Take up what has changed in the optimizer's list of parameters."""
        self.listed = len(parameters)
        if not self._is(parameters) and not all(map(self.has, parameters)):
            self.adopt(parameters)

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """The optimizer, while it lives."""
        return None if self._optimizer is None else self._optimizer()

    def parameters(self) -> list[Tensor | None]:
        """The parameters, None where one is gone."""
        return [reference() for reference in self._references]

    def first_with_grad(self) -> Tensor | None:
        """The first parameter that is trained and has a gradient."""
        living = (p for reference in self._references if (p := reference()) is not None)
        return next((p for p in living if p.requires_grad and p.grad is not None), None)

    def has(self, parameter: Tensor) -> bool:
        """Whether this parameter is one of its own; a number of a tensor that is gone may be given to another."""
        place = self._place.get(id(parameter))
        return place is not None and self._references[place]() is parameter

    def share_of(self, parameters: Sequence[Tensor]) -> int:
        """How many of its own parameters are among these."""
        return len(self) if self._is(parameters) else sum(map(self.has, parameters))

    def _is(self, parameters: Sequence[Tensor]) -> bool:
        """Whether these are its parameters, in its order; at every step they are, so this is quick."""
        return len(parameters) == len(self) and all(map(operator.is_, parameters, self.parameters()))

    def marks(self) -> list[tuple[int, int]]:
        """Which gradients it has, and in which version: these change when a gradient is added to, changed or replaced."""
        grads = [None if p is None else p.grad for p in self.parameters()]
        return [(0, 0) if grad is None else (id(grad), grad._version) for grad in grads]

    def describe(self) -> list[TensorInfo]:
        """Return what the run file says of each tensor."""
        optimizer, parameters = self.optimizer, self.parameters()
        unnamed = [p for p in parameters if p is not None and id(p) not in self._names]
        names = {**self._names, **{id(p): name for p, name in zip(unnamed, parameter_names(unnamed, optimizer), strict=True)}}
        groups: dict[int, int] = {}
        if optimizer is not None:
            groups = {id(p): g for g, group in enumerate(optimizer.param_groups) for p in group["params"]}
        return [
            TensorInfo("?", (), optimizer=self.number)
            if p is None
            else TensorInfo(names[id(p)], tuple(p.shape), optimizer=self.number, group=groups.get(id(p), 0))
            for p in parameters
        ]

    def frozen(self) -> list[int]:
        """Return the places of the parameters that do not ask for a gradient."""
        return [place for place, p in enumerate(self.parameters()) if p is not None and not p.requires_grad]

    def settings(self) -> dict[str, Any]:
        """Return what the run file says of the optimizer: its class, and of each param group the numbers that bound a step."""
        optimizer = self.optimizer
        groups = [] if optimizer is None else optimizer.param_groups
        numbers = [{name: _number(group[name]) for name in ("eps", "betas") if name in group} for group in groups]
        return {"class": "" if optimizer is None else type(optimizer).__name__, "groups": numbers}

    def learning_rates(self) -> list[float]:
        """Return the learning rate of each param group."""
        optimizer = self.optimizer
        return [] if optimizer is None else [float(group.get("lr", 0.0)) for group in optimizer.param_groups]

    def grad_norms(self) -> Tensor:
        """Return the L2 norm of each parameter's gradient, ``ABSENT`` where there is none."""
        return grad_norms(self.parameters())

    def weight_norms(self) -> Tensor:
        """Return the L2 norm of each parameter."""
        return _norms([None if p is None else p.detach() for p in self.parameters()])

    @torch.no_grad()
    def before_update(self) -> None:
        """Keep a copy of the weights, to measure how far the step moves them."""
        self._before = [None if p is None else p.detach().clone() for p in self.parameters()]

    def update_norms(self) -> Tensor | None:
        """Return how far each parameter moved since :meth:`before_update`; None without it."""
        before, self._before = self._before, None
        if before is None:
            return None
        before += [None] * (len(self) - len(before))
        return _norms(_moved(self.parameters(), before))


def _number(value: Any) -> Any:
    """A number, or several; None for what is none: optimizers that others write hold what they like."""
    if isinstance(value, (list, tuple)):
        return [_number(one) for one in value]
    return float(value) if isinstance(value, (int, float)) else None


@torch.no_grad()
def _moved(parameters: Sequence[Tensor | None], before: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Subtract the parameters from their copies, in place; None where there is no copy, or one of another shape."""
    pairs = zip(parameters, before, strict=True)
    kept = [b if p is not None and b is not None and b.shape == p.shape else None for p, b in pairs]
    weights = [p.detach() for p, b in zip(parameters, kept, strict=True) if p is not None and b is not None]
    _subtract([b for b in kept if b is not None], weights)
    return kept


def _subtract(copies: list[Tensor], weights: list[Tensor]) -> None:
    """In one call, which is quicker for many small tensors; one by one where some are of classes that may not mix."""
    if copies and all(type(t) is Tensor for t in weights):
        torch._foreach_sub_(copies, weights)
    else:
        for copy, weight in zip(copies, weights, strict=True):
            copy.sub_(weight)


@torch.no_grad()
def grad_norms(parameters: Sequence[Tensor | None]) -> Tensor:
    """Return the L2 norm of each gradient as one vector on the device, ``ABSENT`` where there is none."""
    return _norms([None if p is None else p.grad for p in parameters])


def _norms(tensors: Sequence[Tensor | None]) -> Tensor:
    present = [t if type(t) is Tensor and t.layout is torch.strided else _values(t) for t in tensors if t is not None]
    norms = norms_of_each(present, 2.0)
    if len(present) == len(tensors):
        return norms
    all_norms = norms.new_full((len(tensors),), ABSENT)
    all_norms[[i for i, t in enumerate(tensors) if t is not None]] = norms
    return all_norms


def _values(tensor: Tensor) -> Tensor:
    """What is measured of a gradient that is no plain tensor; nothing is put in its place."""
    if hasattr(tensor, "to_local"):  # a sharded tensor: this rank's part; whoever reads the run file joins them
        tensor = tensor.to_local()
    return values_of(tensor)
