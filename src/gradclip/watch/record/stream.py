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
from gradclip.watch.record.open_step import OpenStep
from gradclip.watch.record.parameter_names import parameter_names

__all__ = ["Stream", "grad_norms", "parameters_of", "version_of"]


class Stream:
    """The parameters of one optimizer (or of a loop without one), in a fixed order, and the step that is under way.

    Args:
        number: which optimizer of the run it is.
        parameters: its parameters; held weakly, a run must not keep a model alive.
        optimizer: None for a hand-written update.
        names: names that are known already, by the parameter's identity.
    """

    open: OpenStep | None = None
    in_backward = False
    """Whether its optimizers step inside ``backward``."""
    kept: Any = None
    """The gradient that is followed from a step until it is reset; ``observe/gradient_resets.py`` puts it here."""
    fresh: Any = None
    """The gradient that is followed from ``backward`` to the step; ``observe/unused_gradients.py`` puts it here."""
    dropped_losses = 0
    """Losses up to this number led to gradients that were reset before a step could use them."""

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
        self._optimizers = [] if optimizer is None else [weakref.ref(optimizer)]
        self._before: list[Tensor | None] | None = None
        self._listed = 0
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

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Take up what has changed in its optimizer's list of parameters, each of which is looked at."""
        parameters = parameters_of(optimizer)
        self._listed = len(parameters)
        if not self.is_all(parameters) and not all(map(self.has, parameters)):
            self.adopt(parameters)

    def follow_optimizer(self) -> None:
        """The same, if they are not as many as when they were last looked at."""
        for optimizer in self.optimizers if len(self._optimizers) == 1 else ():
            if sum(len(group["params"]) for group in optimizer.param_groups) != self._listed:
                self.follow(optimizer)

    def join(self, optimizer: torch.optim.Optimizer) -> None:
        """Take up one more optimizer: those that step inside one ``backward`` take one step of the training together."""
        self._optimizers.append(weakref.ref(optimizer))

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimizers that live: one, none of a loop by hand, several that step inside ``backward``."""
        return [one for reference in self._optimizers if (one := reference()) is not None]

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """The first of them."""
        return next((one for reference in self._optimizers if (one := reference()) is not None), None)

    @property
    def by_hand(self) -> bool:
        """Whether no optimizer updates it."""
        return not self._optimizers

    def steps_alone(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether it is this optimizer's, and of no other."""
        return len(self._optimizers) == 1 and self._optimizers[0]() is optimizer

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

    def place_of(self, parameter: Tensor) -> int:
        """The place of one of its own parameters."""
        return self._place[id(parameter)]

    def share_of(self, parameters: Sequence[Tensor]) -> int:
        """How many of its own parameters are among these."""
        return len(self) if self.is_all(parameters) else sum(map(self.has, parameters))

    def is_all(self, parameters: Sequence[Tensor]) -> bool:
        """Whether these are its parameters, in its order; at every step they are, so this is quick."""
        return len(parameters) == len(self) and all(map(operator.is_, parameters, self.parameters()))

    def marks(self) -> list[tuple[int, int]]:
        """Which gradients it has, and in which version: these change when a gradient is added to, changed or replaced."""
        grads = [None if p is None else p.grad for p in self.parameters()]
        return [(0, 0) if grad is None else (id(grad), version_of(grad)) for grad in grads]

    def describe(self) -> list[TensorInfo]:
        """Return what the run file says of each tensor."""
        parameters, groups = self.parameters(), self._groups()
        unnamed = [p for p in parameters if p is not None and id(p) not in self._names]
        names = {**self._names, **{id(p): name for p, name in zip(unnamed, parameter_names(unnamed, groups), strict=True)}}
        group_of = {id(p): g for g, group in enumerate(groups) for p in group["params"]}
        return [
            TensorInfo("?", (), optimizer=self.number)
            if p is None
            else TensorInfo(names[id(p)], tuple(p.shape), optimizer=self.number, group=group_of.get(id(p), 0))
            for p in parameters
        ]

    def frozen(self) -> list[int]:
        """Return the places of the parameters that do not ask for a gradient."""
        return [place for place, p in enumerate(self.parameters()) if p is not None and not p.requires_grad]

    def hooked(self) -> int:
        """Return how many parameters have hooks of the script's own, which may change gradients as they appear."""
        names = ("_backward_hooks",) if self.in_backward else ("_backward_hooks", "_post_accumulate_grad_hooks")
        return sum(any(getattr(p, name, None) for name in names) for p in self.parameters())

    def settings(self) -> dict[str, Any]:
        """Return what the run file says of the optimizer: its class, and of each param group the numbers that bound a step."""
        numbers = [{name: _number(group[name]) for name in ("eps", "betas") if name in group} for group in self._groups()]
        name = next((type(one).__name__ for one in self.optimizers), "")
        return {"class": name, "groups": numbers, **({"in_backward": True} if self.in_backward else {})}

    def learning_rates(self) -> list[float]:
        """Return the learning rate of each param group."""
        return [float(group.get("lr", 0.0)) for group in self._groups()]

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

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


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the parameters of all groups."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was written to; one that was made for inference does not know."""
    return 0 if tensor.is_inference() else tensor._version


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


def grad_norms(parameters: Sequence[Tensor | None]) -> Tensor:
    """Return the L2 norm of each gradient as one vector on the device, ``ABSENT`` where there is none."""
    grads = [None if p is None else p.grad for p in parameters]
    if any(grad is not None and grad.requires_grad for grad in grads):  # a part of a graph (``create_graph``)
        grads = [None if grad is None else grad.detach() for grad in grads]
    return _norms(grads)


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
