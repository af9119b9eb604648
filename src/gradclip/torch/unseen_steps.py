"""Notice that weights are stepped while the optimizer's ``step()`` has never run, so that nothing was clipped."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakMethod, WeakSet, ref

import torch
from torch import Tensor

from gradclip.torch.not_compiled import not_compiled

__all__ = ["UnseenSteps"]

_ENOUGH = 256
"""Of so many elements no three quarters move along a gradient by chance; more of them would only cost."""
_watching: WeakSet[UnseenSteps] = WeakSet()
"""Those whose optimizer has not stepped yet."""


class UnseenSteps:
    """Warn once where a weight moves down its gradient before the first step of its optimizer.

    A checkpoint that is loaded, or an average that is copied, moves it elsewhere; SAM, around the optimizer, moves it up first
    (where the optimizer itself is of that kind, that counts). One parameter is looked at, each time its gradient appears, until
    the first step that is clipped; from then on nothing is.

    Args:
        optimizer: what is attached to.
        parameters: what is clipped.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> None:
        self._optimizer = ref(optimizer)
        self._before: tuple[Tensor, Tensor] | None = None
        movable = [p for p in parameters if p.requires_grad and p.is_leaf and p.is_floating_point()]
        self._parameter = min(movable, key=lambda p: abs(p.numel() - _ENOUGH), default=None)
        self._remove: Callable[[], None] | None = None
        if self._parameter is not None:
            look = WeakMethod(self._look)
            self._remove = self._parameter.register_post_accumulate_grad_hook(lambda p: _call(look, p)).remove
            _watching.add(self)

    def stop(self) -> None:
        """Look no more."""
        if self._remove is not None:
            self._remove()
        _watching.discard(self)

    @staticmethod
    def stop_for(parameters: Sequence[Tensor]) -> None:
        """These are stepped and clipped, so whoever else is attached to them has missed nothing."""
        for one in list(_watching):
            if any(one._parameter is p for p in parameters):
                one.stop()

    def _look(self, parameter: Tensor) -> None:
        optimizer, grad = self._optimizer(), parameter.grad
        if optimizer is None or grad is None:
            return
        now, before = parameter.detach(), self._before
        self._before = now.clone(), grad.detach().to_dense().sign()
        if before is None or before[0].shape != now.shape:
            return
        weight, slope = before
        down = -((now - weight).sign() * slope).sum()
        if hasattr(optimizer, "first_step"):
            down = down.abs()
        if bool(slope.any()) and bool(down >= 0.5 * slope.abs().sum()):
            self.stop()
            name = type(optimizer).__name__
            warnings.warn(
                f"gradclip is attached to {name}, and its weights were stepped, but not by its step(): that was not clipped. "
                f"Attach to the optimizer whose step() is called (inside {name}, or around it), or call clip_() of a "
                "gradclip.Clipper(model, ...) before each update.",
                RuntimeWarning,
                stacklevel=2,
            )


@not_compiled
def _call(method: WeakMethod[Any], parameter: Tensor) -> None:
    found = method()
    if found is None or (parameter.is_cuda and torch.cuda.is_current_stream_capturing()):  # a graph can wait for no answer
        return
    with torch.no_grad():
        found(parameter)
