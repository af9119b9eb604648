"""Clip inside ``optimizer.step()``, where the order of operations cannot go wrong."""

from __future__ import annotations

import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from gradclip._inner_optimizer import check_hooks, outer_to_inner
from gradclip.chain import Chain
from gradclip.clipping import Clipping
from gradclip.result import ClipResult
from gradclip.torch.clipper import Clipper
from gradclip.torch.fused import FusedScale
from gradclip.torch.not_compiled import not_compiled
from gradclip.torch.refused_parameters import check_optimizer
from gradclip.torch.targets import Clippable
from gradclip.torch.unseen_steps import UnseenSteps

__all__ = ["Attachment", "attach", "attachment_of"]


class Attachment:
    """The handle of :func:`attach`: the last result, the state, and the way to detach."""

    def __init__(
        self, optimizers: Sequence[torch.optim.Optimizer], clipper: Clipper, scaler: torch.amp.GradScaler | None
    ) -> None:
        self.result: ClipResult | None = None
        """What the last step did; None before the first."""
        self.optimizer = optimizers[-1]
        """The optimizer it clips: of a wrapper, the one inside it."""
        self._optimizers, self._scaler = optimizers, scaler
        self._before = self.optimizer.register_step_pre_hook(self._before_step).id
        self._after = self.optimizer.register_step_post_hook(self._after_step).id
        self._unseen: UnseenSteps | None = UnseenSteps(self.optimizer, clipper.parameters)
        self.clipper = clipper
        vars(self.optimizer)["__getstate__"] = self._state_of_optimizer

    @property
    def clipper(self) -> Clipper:
        """The clipper that runs inside the step."""
        return self._clipper

    @clipper.setter
    def clipper(self, clipper: Clipper) -> None:
        self._clipper, self._fused = clipper, FusedScale(self.optimizer, self._before, clipper.current)

    def detach(self) -> None:
        """Stop clipping; may be called twice."""
        self._fused.clear()
        if self._unseen is not None:
            self._unseen.stop()
        if attachment_of(self.optimizer) is self:
            del self.optimizer._optimizer_step_pre_hooks[self._before]
            self.optimizer._optimizer_step_post_hooks.pop(self._after, None)
            vars(self.optimizer).pop("__getstate__", None)

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

    @not_compiled
    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        if self._fused.divisor is not None:  # the last step failed on its way
            self._fused.clear()
        if self._unseen is not None:
            self._unseen.stop_for(self._clipper.parameters)
            self._unseen = None
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            if not _unscale(self._optimizers, self._scaler):
                return None  # the scaler found an Inf: it drops this step itself, and lowers its scale
            self.result = self._clipper.clip_(self._fused if optimizer is self.optimizer else None)
            return None
        wrapped = self._clipping(closure)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": wrapped}
        return (args[0], wrapped, *args[2:]), kwargs

    @not_compiled
    def _after_step(self, *step: object) -> None:
        if self._fused.divisor is not None:
            self._fused.clear()

    def _state_of_optimizer(self) -> Any:
        """What a copy or a pickle of the optimizer is made of: its own state, which knows no hooks, and those that clip."""
        optimizer = self.optimizer
        state = type(optimizer).__getstate__(optimizer)
        obstacle = _obstacle(self._clipper)
        if obstacle:
            warnings.warn(
                f"the copy of this {type(optimizer).__name__} does not clip, for {obstacle}: call gradclip.attach(copy, ...)",
                RuntimeWarning,
                stacklevel=3,
            )
            return state
        hooks = {
            "_optimizer_step_pre_hooks": OrderedDict({self._before: self._before_step}),
            "_optimizer_step_post_hooks": OrderedDict({self._after: self._after_step}),
        }
        return {**state, **hooks, "__getstate__": self._state_of_optimizer}

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no part in the loop of the original: neither in its scaler, nor in the wrappers around its optimizer."""
        return {**vars(self), "_optimizers": (self.optimizer,), "_scaler": None, "_unseen": None, "result": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        RemovableHandle.next_id = max(RemovableHandle.next_id, self._before + 1, self._after + 1)

    def _clipping(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The gradients of a closure appear when the optimizer calls it, so that is where they are clipped."""

        def wrapped() -> Any:
            loss = closure()
            self.result = self._clipper.clip_()
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
    first; the gradients of a closure are clipped each time it is called, which counts as a step each time. A GAN attaches to
    each of its optimizers. Where one factor is all there is, a fused Adam, AdamW, SGD or Adagrad multiplies by it itself, as it
    reads the gradients, and leaves them clipped: the same weights to rounding, one pass less.

    An optimizer that is given other parameters (``add_param_group``, an embedding that is exchanged) has them clipped from its
    next step on, and what was learnt of the others is kept. Of a wrapper with an optimizer inside it that has the same
    parameters (Lookahead, SAM, a trainer's own) the inner steps are clipped. A copy of the optimizer clips too, with a history
    of its own (but where tensors are cut over ranks, or the method holds a function: that warns).
    (LBFGS learns curvature from differences of gradients: a threshold that is reached all the time misleads it, with this
    function as with any other way to clip; use one that only catches spikes.)

    Args:
        optimizer: any ``torch.optim`` optimizer, or a wrapper around one.
        clipping: a recipe, or its spelling.
        scaler: the AMP scaler, if the loop uses one.
        parameters: what to clip and how to name it (usually the model, which gives parameters their names);
            all of the optimizer's parameters by default. Where it names a part, those that the optimizer gets later are left
            out, which warns once.
        group: the process group over whose ranks plain tensors are cut, if they are; see :class:`Clipper`.

    Returns:
        A handle, also a context manager: ``result``, ``state_dict()``, ``detach()``.

    Raises:
        TypeError: not an optimizer, one whose ``step()`` calls no hooks, or not a recipe.
        ValueError: this optimizer is already attached to, or the one inside it.
        TargetError: ``parameters`` has one that the optimizer does not own; or a gradient would be this rank's shard of one.

    Warns:
        RuntimeWarning: before the first ``step()``, something else has stepped the weights, which was not clipped.

    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> handle = attach(optimizer, "global_norm:1.0", parameters=model)
    >>> (100 * model(torch.ones(1, 2))).sum().backward()
    >>> optimizer.step()
    >>> round(float(handle.result.clipped_norm), 6), handle.result.names
    (1.0, ('weight', 'bias'))
    >>> handle.detach()
    """
    optimizers = outer_to_inner(optimizer)
    check_hooks(optimizers[-1])
    if any(attachment_of(one) for one in optimizers):
        raise ValueError("this optimizer already clips: call detach() on its handle first, or it would be clipped twice")
    inner = optimizers[-1]
    check_optimizer(inner)
    clipper = Clipper(inner if parameters is None else parameters, clipping, optimizer=inner, group=group)
    return Attachment(optimizers, clipper, scaler)


def attachment_of(optimizer: torch.optim.Optimizer) -> Attachment | None:
    """Return what clips the steps of an optimizer, or of one inside it that steps its parameters; None where nothing does."""
    for one in reversed(outer_to_inner(optimizer)):
        for hook in vars(one).get("_optimizer_step_pre_hooks", {}).values():
            if isinstance(owner := getattr(hook, "__self__", None), Attachment):
                return owner
    return None


def _obstacle(clipper: Clipper) -> str:
    """Why a clipper cannot go with a copy, which may be for another process; nothing where it can."""
    if clipper.current.target.shards is not None:
        return "its tensors are cut over the ranks of this run"
    try:
        pickle.dumps(clipper.clipping)
    except Exception as error:
        return f"its method cannot be copied ({error})"
    return ""


def _unscale(optimizers: Sequence[torch.optim.Optimizer], scaler: torch.amp.GradScaler | None) -> bool:
    """Undo a GradScaler's scaling where it has not been yet; False where the scaler will drop this step.

    ``GradScaler.step`` unscales before it calls ``step()``, except for fused optimizers: those get ``grad_scale`` and
    ``found_inf`` as attributes and divide inside their kernel, which is too late for a norm.
    """
    optimizer = optimizers[-1]
    found_inf = getattr(optimizer, "found_inf", None)
    if isinstance(found_inf, Tensor) and bool(found_inf):
        return False
    if scaler is not None and scaler.is_enabled() and _ready(scaler, optimizers):
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


def _ready(scaler: torch.amp.GradScaler, optimizers: Sequence[torch.optim.Optimizer]) -> bool:
    """Whether the scaler has scaled a loss since its last update and not yet unscaled these gradients, for any of them."""
    if scaler._scale is None:
        return False
    return all(scaler._per_optimizer_states[id(one)]["stage"].name == "READY" for one in optimizers)
