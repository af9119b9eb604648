"""Clip inside ``optimizer.step()``, where the order of operations cannot go wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from gradclip.chain import Chain
from gradclip.clipping import Clipping
from gradclip.result import ClipResult
from gradclip.torch.clipper import Clipper
from gradclip.torch.fused import FusedScale
from gradclip.torch.targets import Clippable

__all__ = ["Attachment", "attach"]

_attached: WeakKeyDictionary[torch.optim.Optimizer, Attachment] = WeakKeyDictionary()


class Attachment:
    """The handle of :func:`attach`: the last result, the state, and the way to detach."""

    def __init__(self, optimizer: torch.optim.Optimizer, clipper: Clipper, scaler: torch.amp.GradScaler | None) -> None:
        self.clipper = clipper
        """The clipper that runs inside the step."""
        self.result: ClipResult | None = None
        """What the last step did; None before the first."""
        self.optimizer = optimizer
        """The optimizer it clips."""
        self._scaler = scaler
        self._hook = optimizer.register_step_pre_hook(self._before_step)
        self._after = optimizer.register_step_post_hook(self._after_step)
        self._fused = FusedScale(optimizer, self._hook.id, clipper.parameters)

    def detach(self) -> None:
        """Stop clipping; may be called twice."""
        self._hook.remove()
        self._after.remove()
        self._fused.clear()
        if _attached.get(self.optimizer) is self:
            del _attached[self.optimizer]

    def state_dict(self) -> dict[str, Any]:
        """Return the clipper's state, for a checkpoint."""
        return self.clipper.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state; see :meth:`Clipper.load_state_dict`."""
        self.clipper.load_state_dict(state)

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *error: object) -> None:
        self.detach()

    def __repr__(self) -> str:
        return f"Attachment({type(self.optimizer).__name__}, {self.clipper!r})"

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        self._fused.clear()
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            if not _unscale(optimizer, self._scaler):
                return None  # the scaler found an Inf: it drops this step itself, and lowers its scale
            self.result = self.clipper.clip_(self._fused)
            return None
        wrapped = self._clipping(closure)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": wrapped}
        return (args[0], wrapped, *args[2:]), kwargs

    def _after_step(self, *step: object) -> None:
        self._fused.clear()

    def _clipping(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The gradients of a closure appear when the optimizer calls it, so that is where they are clipped."""

        def wrapped() -> Any:
            loss = closure()
            self.result = self.clipper.clip_()
            return loss

        return wrapped


def attach(
    optimizer: torch.optim.Optimizer,
    clipping: Clipping | Chain | str,
    *,
    scaler: torch.amp.GradScaler | None = None,
    parameters: Clippable | None = None,
    group: Any = None,
) -> Attachment:
    """Clip every step of an optimizer, from inside its ``step()``; leave the training loop as it is.

    Accumulated gradients are clipped once, when the step is taken; gradients that a ``GradScaler`` has scaled are unscaled
    first; the gradients of a closure are clipped each time it is called. A GAN attaches to each of its optimizers. Where one
    factor is all there is, a fused Adam, AdamW, SGD or Adagrad multiplies by it itself, as it reads the gradients, and leaves
    them clipped: the same weights to rounding, one pass less.
    (LBFGS learns curvature from differences of gradients: a threshold that is reached all the time misleads it, with this
    function as with any other way to clip; use one that only catches spikes.)

    Args:
        optimizer: any ``torch.optim`` optimizer.
        clipping: a recipe, or its spelling.
        scaler: the AMP scaler, if the loop uses one.
        parameters: what to clip and how to name it (usually the model, which gives parameters their names);
            all of the optimizer's parameters by default.
        group: the process group over whose ranks plain tensors are cut, if they are; see :class:`Clipper`.

    Returns:
        A handle, also a context manager: ``result``, ``state_dict()``, ``detach()``.

    Raises:
        TypeError: not an optimizer, or not a recipe.
        ValueError: this optimizer is already attached to.
        TargetError: ``parameters`` has one that the optimizer does not own.

    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> handle = attach(optimizer, "global_norm:1.0", parameters=model)
    >>> (100 * model(torch.ones(1, 2))).sum().backward()
    >>> optimizer.step()
    >>> round(float(handle.result.clipped_norm), 6), handle.result.names
    (1.0, ('weight', 'bias'))
    >>> handle.detach()
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"attach takes a torch.optim optimizer, not {type(optimizer).__name__}; for a model use gradclip.clip_")
    if optimizer in _attached:
        raise ValueError("this optimizer already clips: call detach() on its handle first, or it would be clipped twice")
    clipper = Clipper(optimizer if parameters is None else parameters, clipping, optimizer=optimizer, group=group)
    handle = _attached[optimizer] = Attachment(optimizer, clipper, scaler)
    return handle


def _unscale(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None) -> bool:
    """Undo a GradScaler's scaling where it has not been yet; False where the scaler will drop this step.

    ``GradScaler.step`` unscales before it calls ``step()``, except for fused optimizers: those get ``grad_scale`` and
    ``found_inf`` as attributes and divide inside their kernel, which is too late for a norm.
    """
    found_inf = getattr(optimizer, "found_inf", None)
    if isinstance(found_inf, Tensor) and bool(found_inf):
        return False
    if scaler is not None and scaler.is_enabled() and _ready(scaler, optimizer):
        scaler.unscale_(optimizer)
        if hasattr(optimizer, "grad_scale"):
            optimizer.grad_scale = None
        return True
    scale = getattr(optimizer, "grad_scale", None)
    if isinstance(scale, Tensor):
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        for grad in grads:
            grad.div_(scale.to(grad.device))
        optimizer.grad_scale = None  # type: ignore[attr-defined]
    return True


def _ready(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> bool:
    """Whether the scaler has scaled a loss since its last update and not yet unscaled this optimizer's gradients."""
    if scaler._scale is None:
        return False
    return bool(scaler._per_optimizer_states[id(optimizer)]["stage"].name == "READY")
