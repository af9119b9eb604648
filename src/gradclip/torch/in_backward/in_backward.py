"""Clip each gradient as it appears, before backward goes on to the next: for loops that free gradients early."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from gradclip.chain import Chain
from gradclip.clipping import Clipping, as_clipping
from gradclip.errors import TargetError
from gradclip.result import ClipResult
from gradclip.torch.by_tensor import by_element, by_tensor
from gradclip.torch.in_backward.hooks import check_model, check_parameters, forget, register, when_backward_ends
from gradclip.torch.in_backward.one_by_one import joined
from gradclip.torch.in_backward.stepping import Then, read
from gradclip.torch.in_backward.tensor_by_tensor import TensorByTensor, goes_tensor_by_tensor
from gradclip.torch.in_backward.two_passes import TwoPasses, check_whole_tensors
from gradclip.torch.plan import Stage
from gradclip.torch.saved import pack, unpack
from gradclip.torch.skips import DROPPED_GRADIENT, Skips
from gradclip.torch.targets import Clippable, resolve

__all__ = ["InBackward"]


class InBackward:
    """Clip every gradient inside ``backward()``, as soon as it is complete; then step its parameter and free the gradient.

    For training with little memory, where each parameter has an optimizer of its own and no two gradients are alive together.
    Methods that clip tensor by tensor (``tensor_norm``, ``block_rms``, ``agc``, ``value``, ``spam``, ``norm_growth``,
    ``quantile`` with ``per_tensor``) give exactly what a ``Clipper`` gives after ``backward()``. Those that need all norms
    first (``global_norm`` and the others) give it in two passes, see :meth:`measuring`; in a single one their first gradient
    raises. docs/low-memory.md has the whole loop, and a table of methods.

    Each backward is a step. Under ``nonfinite="skip"`` a NaN or Inf drops the gradient of its own parameter only, since others
    have been stepped by then. Clipping goes on until :meth:`detach`, whether this object is kept or not.

    Args:
        target: a model, or parameters, named or not; a frozen one takes part as soon as it is thawed.
        clipping: a recipe, or its spelling.
        then: called with each parameter whose gradient has been clipped (not where it was dropped); or the optimizer of each
            parameter, which is stepped and the gradient freed. Hooks that are registered later run after it.

    Raises:
        TypeError: gradients instead of parameters, or ``then`` is neither.
        TargetError: a method (a chain is two), a parameter or a wrapped model that does not fit.
        ValueError: a gradient is already clipped as it appears.

    >>> import torch
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}
    >>> in_backward = InBackward(model, "tensor_norm:1.0", optimizers)
    >>> (100 * model(torch.ones(1, 2))).sum().backward()
    >>> model.weight.grad is None, [round(norm, 6) for norm in in_backward.result.clipped_tensor_norms.tolist()]
    (True, [1.0, 1.0])
    """

    def __init__(self, target: Clippable, clipping: Clipping | str, then: Then = None) -> None:
        check_model(target)
        method = as_clipping(clipping)
        if isinstance(method, Chain):
            raise TargetError(
                f"{method} is two methods, and the second has to wait for the first: clip after a backward() that frees "
                "nothing, with gradclip.attach(optimizer, ...) or gradclip.Clipper(model, ...).clip_()"
            )
        self._stage = Stage(method, resolve(target))
        check_parameters(self._stage.target)
        self._then, rates = read(then, self._stage.target)
        if method.threshold.needs_lr and rates is None:
            raise TargetError(f"{method} needs the learning rates: write then={{parameter: its optimizer, ...}}")
        self._rates = rates if method.threshold.needs_lr else None
        self._history: dict[str, Tensor] = {}
        self._each: TensorByTensor | None = None
        if goes_tensor_by_tensor(method):
            self._each = TensorByTensor(self._stage, self._rates, self._history)
        else:
            check_whole_tensors(self._stage)
        self._measuring: TwoPasses | None = None  # in its first pass
        self._measured: TwoPasses | None = None  # until its second is over
        self._results: dict[int, ClipResult] = {}
        self._result: ClipResult | None = None
        self._skips = Skips(method.nonfinite, DROPPED_GRADIENT)
        self._steps = 0
        self._lock = threading.RLock()  # gradients on several devices appear in as many threads
        _alive.add(self)
        self._stepping = False
        hooks = [register(p, partial(self._on_gradient, i)) for i, p in enumerate(self._stage.target.parameters)]
        self._hooks = [hook for hook in hooks if hook is not None]

    @property
    def clipping(self) -> Clipping:
        """The method."""
        return self._stage.clipping

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters, in order."""
        return self._stage.target.names

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The parameters, in order."""
        return tuple(self._stage.target.parameters)

    @property
    def step(self) -> int:
        """Steps taken so far, the one under way included."""
        return self._steps + bool(self._results)

    @property
    def skipped(self) -> int:
        """Steps in which a gradient was dropped because it was not finite."""
        return self._skips.total

    @property
    def skipped_in_a_row(self) -> int:
        """The same, since the last step without one."""
        return self._skips.in_a_row

    @property
    def result(self) -> ClipResult | None:
        """What the last backward did, None before the first."""
        self._finish()
        return self._result

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Let the backward inside only measure, and free the gradients; the next one is then clipped by its norms, exactly.

        Both need the same gradients: the same batch, the same random numbers (dropout), best one graph. (A second pass whose
        norms differ is noticed afterwards, and warns)::

            with in_backward.measuring():
                loss.backward(retain_graph=True)
            loss.backward()

        A NaN or Inf is known beforehand too, so that ``skip`` drops the whole step.

        Raises:
            TargetError: no gradient appeared, or one appeared twice.
            NonFiniteGradientError: a NaN or Inf, under ``nonfinite="raise"``; nothing is stepped.
        """
        self._finish()
        self._measured, self._measuring = None, TwoPasses(self._stage, self._rates, self._history)
        try:
            yield
            self._measuring.decide(self._steps)
            self._measured = self._measuring
        finally:
            self._measuring = None

    def detach(self) -> None:
        """Stop clipping, and stepping with ``then``; may be called twice."""
        self._finish()
        for hook in self._hooks:
            hook.remove()
        if self._hooks:  # else somebody else may have hooked on since
            forget(self._stage.target.parameters)
        self._hooks = []

    def state_dict(self) -> dict[str, Any]:
        """Return a flat dict for a checkpoint, as :meth:`Clipper.state_dict` does; either can take up the other's."""
        self._finish()
        history = {key: value.clone() for key, value in by_tensor(self._stage, self._history).items()}
        return pack(str(self.clipping), (self._steps, self._skips.total, self._skips.in_a_row), history)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where a saved state left off, bit for bit.

        Raises:
            StateError: the state is of another version, recipe or model, or incomplete; nothing is loaded.
        """
        start = by_tensor(self._stage, self._stage.init())
        counters, saved = unpack(str(self.clipping), start, state)
        history = by_element(self._stage, saved)
        self._finish()
        self._steps, *skips = counters
        self._skips.load(*skips)
        device = next((p.device for p in self._stage.target.parameters), torch.device("cpu"))
        self._history.clear()
        self._history.update({key: value.to(device, copy=True) for key, value in history.items()})

    def __enter__(self) -> InBackward:
        return self

    def __exit__(self, *error: object) -> None:
        self.detach()

    def __repr__(self) -> str:
        return f"InBackward({self.clipping}, {len(self.names)} parameters, step {self.step})"

    def _finish(self) -> None:
        """End the step, but not where a gradient is just being stepped."""
        with self._lock:
            if not self._stepping:
                self._end_step()

    def _on_gradient(self, i: int, parameter: Tensor) -> None:
        """Take one gradient that is complete."""
        with self._lock:
            if parameter.grad is None:
                raise TargetError(
                    f"the gradient of {self.names[i]!r} was freed before it could be clipped, by a hook that was registered "
                    "earlier: register that hook after InBackward, or pass what it does as then=..."
                )
            if self._measuring is not None:
                self._measuring.measure(i)
                return
            if i in self._results:  # nobody said that the backward before had ended
                self._end_step()
            self._results[i] = self._clip(i)
        when_backward_ends(self._finish)
        if parameter.grad is not None and self._then is not None:
            self._stepping = True
            try:
                self._then(parameter)
            finally:
                self._stepping = False

    def _clip(self, i: int) -> ClipResult:
        """Clip one gradient; what watches a script stands around this."""
        return self._way().clip(i, self._steps)

    def _way(self) -> TensorByTensor | TwoPasses:
        """Return what clips the gradients of this backward."""
        if self._each is not None and not (self._measured and self._measured.result.skipped):
            return self._each
        if self._measured is None:
            raise TargetError(
                f"{self.clipping} needs the norms of all gradients, which are known only after the last one: run backward() "
                "twice, first inside `with in_backward.measuring():`, or use a method that goes tensor by tensor, such as "
                '"agc:0.01"'
            )
        return self._measured

    def _end_step(self) -> None:
        if not self._results:
            return
        limits, factors = self._way().end_step(self._results)
        self._result = joined(self._stage, self._results, limits, factors)
        skipped = any(result.skipped for result in self._results.values())
        measured, self._measured, self._results = self._measured, None, {}
        self._steps += 1
        if measured is not None:
            measured.check(self._result.tensor_norms)
        if skipped:
            self._skips.count(self._result.nonfinite_names)
        else:
            self._skips.forgive()


_alive: WeakSet[InBackward] = WeakSet()


def _unlock_all() -> None:
    """A thread that clips while another forks is not in the child to let go of its lock."""
    for in_backward in _alive:
        in_backward._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_all)
