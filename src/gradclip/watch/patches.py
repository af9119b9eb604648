"""Put the watching around PyTorch's own functions, and take it away again.

Every wrapper calls the original with the very arguments it was given, so the script's numbers stay what they were. What the
watching itself does wrong is caught, said once, and ends the watching, never the training.
"""

from __future__ import annotations

import functools
import os
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import gradclip.torch as own
from gradclip.clipping import Clipping
from gradclip.result import ClipResult
from gradclip.torch import Attachment, Clipper, attach
from gradclip.watch.session import Session

__all__ = ["Patches"]

Result = TypeVar("Result")


class Patches:
    """Watch through a session until :meth:`remove`.

    Args:
        session: is told of every call.
        clip: a method to clip every optimizer with, in place of the script's own clipping.
        on_failure: is given one sentence if the watching has to stop.
    """

    def __init__(self, session: Session, clip: Clipping | None, on_failure: Callable[[str], object]) -> None:
        self._session, self._clip, self._on_failure = session, clip, on_failure
        self._pid = os.getpid()
        self._live = True
        self._attached: list[Attachment] = []
        self._undo: list[Callable[[], object]] = []
        self.replaced = 0
        """Calls of the script's own clipping that were left out."""
        self._install()

    def remove(self) -> None:
        """Put everything back as it was; may be called twice."""
        self._live = False
        while self._undo:
            self._undo.pop()()
        while self._attached:
            self._attached.pop().detach()

    def _install(self) -> None:
        scaler = torch.amp.grad_scaler.GradScaler
        hooks = (
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        )
        self._undo += [hook.remove for hook in hooks]
        self._wrap(torch.autograd, "backward", self._backward)
        self._wrap(torch.optim.Optimizer, "__init__", self._optimizer_init)
        self._wrap(torch.optim.Optimizer, "zero_grad", self._zero_grad)
        self._wrap(scaler, "scale", self._scale)
        self._wrap(scaler, "unscale_", self._unscale)
        self._wrap(scaler, "step", self._scaler_step)
        self._wrap(Clipper, "clip_", self._clipper)
        for function in ("clip_grad_norm_", "clip_grad_value_"):
            self._wrap_everywhere(getattr(torch.nn.utils, function), self._torch_clip)
            self._wrap_everywhere(getattr(own, function), self._torch_clip)

    def _wrap(self, owner: Any, name: str, around: Callable[..., Any]) -> None:
        original = getattr(owner, name)
        setattr(owner, name, _wrapper(original, around))
        self._undo.append(lambda: setattr(owner, name, original))

    def _wrap_everywhere(self, original: Callable[..., Any], around: Callable[..., Any]) -> None:
        """Wrap a function in every module that has imported it by name."""
        wrapped = _wrapper(original, around)
        for module in [m for m in list(sys.modules.values()) if type(m) is types.ModuleType]:
            for name in [n for n, value in list(vars(module).items()) if value is original]:
                setattr(module, name, wrapped)
                self._undo.append(functools.partial(setattr, module, name, original))

    def _watching(self) -> bool:
        """Not in a forked child, and not while a compiler traces through."""
        return self._live and os.getpid() == self._pid and not torch.compiler.is_compiling()

    def _tell(self, method: Callable[..., Result], *args: Any) -> Result | None:
        """Tell the session something; what goes wrong there ends the watching alone."""
        if not self._watching():
            return None
        try:
            with torch.no_grad():
                return method(*args)
        except Exception as error:
            self._live = False
            self._on_failure(f"watching stopped, training goes on: {type(error).__name__}: {error}")
            return None

    # Around PyTorch's functions --------------------------------------------------------------------------------------

    def _backward(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        tensors = args[0] if args else kwargs.get("tensors")
        first = (
            tensors
            if isinstance(tensors, Tensor)
            else next(iter(tensors), None)
            if isinstance(tensors, (list, tuple))
            else None
        )
        if first is not None:
            self._tell(self._session.before_backward, first)
        result = original(*args, **kwargs)
        self._tell(self._session.after_backward)
        stream = self._session.manual.stream
        if self._clip is not None and stream is not None and self._watching():
            Clipper([p for p in stream.parameters() if p is not None], self._clip).clip_()
        return result

    def _optimizer_init(self, original: Callable[..., Any], optimizer: Any, *args: Any, **kwargs: Any) -> None:
        original(optimizer, *args, **kwargs)
        self._tell(self._session.optimizer_made, optimizer)

    def _zero_grad(self, original: Callable[..., Any], optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        self._tell(self._session.zero_grad, optimizer)
        return original(optimizer, *args, **kwargs)

    def _scale(self, original: Callable[..., Any], scaler: Any, outputs: Any) -> Any:
        result = original(scaler, outputs)
        self._tell(self._session.scaled, outputs, result)
        return result

    def _unscale(self, original: Callable[..., Any], scaler: Any, optimizer: Any) -> Any:
        result = original(scaler, optimizer)
        if scaler.is_enabled():
            self._tell(self._session.unscaled, optimizer)
        return result

    def _scaler_step(self, original: Callable[..., Any], scaler: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        enabled = scaler.is_enabled()
        count = self._tell(self._session.before_scaler_step, optimizer, scaler._scale) if enabled else None
        result = original(scaler, optimizer, *args, **kwargs)
        if enabled and count is not None:
            self._tell(self._session.after_scaler_step, optimizer, count)
        return result

    def _torch_clip(self, original: Callable[..., Any], parameters: Any, bound: Any, *args: Any, **kwargs: Any) -> Any:
        if not self._watching():
            return original(parameters, bound, *args, **kwargs)
        parameters, listed = _reusable(parameters)
        if self._clip is not None:
            self.replaced += 1
            grads = [p.grad for p in listed if p.grad is not None]
            return None if "value" in original.__name__ else torch.nn.utils.get_total_norm(grads, *args[:1])
        self._tell(self._session.before_clip, listed)
        result = original(parameters, bound, *args, **kwargs)
        self._tell(self._session.after_clip, listed, original.__name__, float(bound))
        return result

    def _clipper(self, original: Callable[..., Any], clipper: Clipper) -> ClipResult:
        parameters = list(clipper.parameters)
        self._tell(self._session.before_clip, parameters)
        result: ClipResult = original(clipper)
        limit = float(result.limits) if isinstance(result.limits, (int, float)) or result.limits.numel() == 1 else None
        self._tell(self._session.after_clip, parameters, str(clipper.clipping), limit, result)
        return result

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        closure = (len(args) > 1 and args[1] is not None) or kwargs.get("closure") is not None
        self._tell(self._session.before_step, optimizer, closure)
        if self._clip is not None and self._watching() and not any(a.optimizer is optimizer for a in self._attached):
            self._attached.append(attach(optimizer, self._clip))

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._tell(self._session.after_step, optimizer)


def _wrapper(original: Callable[..., Any], around: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    return wrapped


def _reusable(parameters: Tensor | Iterable[Tensor]) -> tuple[Any, list[Tensor]]:
    """Return what to pass on and what to look at; an empty generator stays one, because torch warns of it."""
    if isinstance(parameters, Tensor):
        return parameters, [parameters]
    listed = list(parameters)
    if not listed and isinstance(parameters, types.GeneratorType):
        return (p for p in listed), listed
    return listed, listed
