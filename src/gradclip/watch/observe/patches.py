"""Put the watching around PyTorch's own functions, and take it away again.

Every original is called with the very arguments the script gave, so the script's numbers stay what they were. What the
watching itself does wrong is caught, said once, and ends the watching, never the training.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch._C._dynamo.eval_frame import get_eval_frame_callback
from torch._compile import _disable_dynamo
from torch.compiler import is_compiling
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from gradclip._torch_import import when_torch_imported
from gradclip.watch.observe.call_wrapper import Call, wrapper
from gradclip.watch.observe.inside_backward import inside_backward
from gradclip.watch.observe.other_clipping import OTHERS, OtherClipping

if TYPE_CHECKING:
    from gradclip.watch.observe.replace_clipping import ReplaceClipping
    from gradclip.watch.observe.session import Session

__all__ = ["Patches"]

Result = TypeVar("Result")
Step = Callable[[Call], object]


class Patches:
    """Watch through a session until :meth:`remove`.

    Args:
        session: gives the session that is told of every call; not asked for one before the first call.
        replacement: the clipping that is done in place of the script's own, if any.
        on_failure: is given one sentence if the watching has to stop.
    """

    def __init__(
        self, session: Callable[[], Session], replacement: ReplaceClipping | None, on_failure: Callable[[str], object]
    ) -> None:
        self._session, self._replacement, self._on_failure = session, replacement, on_failure
        self._pid = os.getpid()
        self._live = True
        self._others = list(OTHERS)
        """What is not imported yet."""
        self._in_other = False
        """Whether a clipping of another library is under way, which may call PyTorch's."""
        self._undo: list[Callable[[], object]] = []
        self._install()

    def remove(self) -> None:
        """Put everything back as it was; may be called twice."""
        self._live = False
        while self._undo:
            self._undo.pop()()
        if self._replacement is not None:
            self._replacement.detach()

    def forked(self) -> None:
        """This is a child that was just forked: watch here, too."""
        self._pid = os.getpid()

    def _install(self) -> None:
        scaler = torch.amp.grad_scaler.GradScaler
        self._undo += [
            register_optimizer_step_pre_hook(self._before_step).remove,
            register_optimizer_step_post_hook(self._after_step).remove,
        ]
        self._wrap(torch.autograd, "backward", self._before_backward, self._after_backward)
        self._wrap(torch.optim.Optimizer, "_patch_step_function", self._optimizer_made)  # first thing __init__ does
        self._wrap(torch.optim.Optimizer, "zero_grad", self._optimizer_zero_grad)
        self._wrap(torch.nn.Module, "zero_grad", self._module_zero_grad)
        self._wrap(scaler, "scale", _nothing, self._scaled)
        self._wrap(scaler, "unscale_", _nothing, self._unscaled)
        self._wrap(scaler, "step", self._before_scaler_step, self._after_scaler_step)
        self._wrap_clipping(torch.nn.utils)
        self._undo.append(when_torch_imported(self._wrap_own))

    def _wrap_own(self, own: Any) -> None:
        """This library's own clipping, from the moment that the script, or something else, imports it."""
        try:
            self._wrap(own.Clipper, "clip_", self._before_own_clip, self._after_own_clip)
            self._wrap(own.functions, "clip_once", self._before_own_clip, self._after_own_clip)
            self._wrap(own.InBackward, "_clip", self._before_clip_in_backward)
            self._wrap_clipping(own)
        except Exception as error:
            self._stop(error)

    def _wrap(self, owner: Any, name: str, before: Step, after: Step | None = None) -> None:
        original = vars(owner)[name]
        setattr(owner, name, wrapper(original, before, after))
        self._undo.append(lambda: setattr(owner, name, original))

    def _wrap_clipping(self, owner: Any) -> None:
        for name in ("clip_grad_norm_", "clip_grad_value_"):
            self._wrap_everywhere(getattr(owner, name), partial(self._before_clip, name), partial(self._after_clip, name))

    def _wrap_others(self) -> None:
        """The clipping of other libraries, once the script has imported them."""
        try:
            for other in [one for one in self._others if one.find() is not None]:
                self._others.remove(other)
                before, after = partial(self._before_other_clip, other), partial(self._after_other_clip, other)
                if other.of_class:
                    self._wrap(other.owner(), other.name, before, after)
                else:
                    self._wrap_everywhere(other.find(), before, after)
        except Exception as error:
            self._stop(error)

    def _wrap_everywhere(self, function: Any, before: Step, after: Step) -> None:
        """Wrap a function in every module that has imported it by name."""
        wrapped = {id(function): (function, wrapper(function, before, after))}
        for module in [m for m in list(sys.modules.values()) if type(m) is types.ModuleType]:
            if wrapped.keys().isdisjoint(map(id, list(vars(module).values()))):
                continue  # the script waits: nearly all of a thousand modules end here, in half the time
            for name, value in list(vars(module).items()):
                original, wrapping = wrapped.get(id(value), (None, None))
                if original is not None and value is original:
                    setattr(module, name, wrapping)
                    self._undo.append(partial(setattr, module, name, original))

    def _watching(self) -> bool:
        """Not while a compiler traces through, and not in a forked child."""
        return not is_compiling() and self._live and os.getpid() == self._pid

    def _notify(self, tell: Callable[[Session], Result]) -> Result | None:
        """Tell the session something; what goes wrong there ends the watching alone."""
        if is_compiling() or not self._live or os.getpid() != self._pid:  # as _watching, which would be one more call
            return None
        try:
            if get_eval_frame_callback():  # a compiler reads every function that is entered now: none of ours
                return _unread(tell, self._session)
            return tell(self._session())
        except Exception as error:
            self._stop(error)
            return None

    def _stop(self, error: Exception) -> None:
        self._live = False
        self._on_failure(f"watching stopped, training goes on: {type(error).__name__}: {error}")

    # Around PyTorch's functions --------------------------------------------------------------------------------------

    def _before_backward(self, call: Call) -> None:
        self._wrap_others()
        self._in_other = False
        tensors = call.argument(0, "tensors")
        first = tensors[0] if isinstance(tensors, (list, tuple)) and tensors else tensors
        call.note = isinstance(first, Tensor) and not inside_backward()  # a part of another, which checkpointing calls
        if call.note:
            self._notify(lambda session: session.before_backward(first))

    def _after_backward(self, call: Call) -> None:
        if not call.note:
            return
        self._notify(lambda session: session.after_backward())
        if self._replacement is not None and self._watching():
            by_hand = self._session().manual
            if by_hand.certain and by_hand.stream is not None:
                self._replacement.clip_by_hand(by_hand.stream)

    def _optimizer_made(self, call: Call) -> None:
        self._notify(lambda session: session.optimizer_made(call.args[0]))

    def _optimizer_zero_grad(self, call: Call) -> None:
        self._notify(lambda session: session.zero_grad(call.args[0]))

    def _module_zero_grad(self, call: Call) -> None:
        self._notify(lambda session: session.zero_grad())

    def _scaled(self, call: Call) -> None:
        self._notify(lambda session: session.scaled(call.argument(1, "outputs"), call.result))

    def _unscaled(self, call: Call) -> None:
        if call.args[0].is_enabled():
            self._notify(lambda session: session.unscaled(call.argument(1, "optimizer"), call.args[0]._scale))

    def _before_scaler_step(self, call: Call) -> None:
        if call.args[0].is_enabled():
            call.note = self._notify(
                lambda session: session.before_scaler_step(call.argument(1, "optimizer"), call.args[0]._scale)
            )

    def _after_scaler_step(self, call: Call) -> None:
        if call.note is not None:
            self._notify(lambda session: session.after_scaler_step(call.argument(1, "optimizer"), call.note))

    def _before_clip(self, name: str, call: Call) -> None:
        if not self._watching() or self._in_other:
            return
        call.note = self._notify(lambda _: _listed(call, call.argument(0, "parameters")))
        if call.note is None:
            return
        if self._replacement is not None:
            self._replacement.leave_out(name, call)
        else:
            self._notify(lambda session: session.clips.before(call.note))

    def _after_clip(self, name: str, call: Call) -> None:
        if call.note is None:
            return
        bound = call.argument(1, "clip_value" if "value" in name else "max_norm")
        norm = None if "value" in name else float(call.argument(2, "norm_type", 2.0))
        limit = bound if isinstance(bound, Tensor) else float(bound)
        self._notify(lambda session: session.clips.after(call.note, name, limit, norm))

    def _before_other_clip(self, other: OtherClipping, call: Call) -> None:
        if not self._watching() or other.limit(call) is None:
            return
        call.note = self._notify(lambda _: _listed(call, other.parameters(call)))
        if call.note is None:
            return
        if self._replacement is not None:
            self._replacement.leave_out_other(other, call)
            return
        self._in_other = True
        self._notify(lambda session: session.clips.before(call.note))

    def _after_other_clip(self, other: OtherClipping, call: Call) -> None:
        self._in_other = False
        if call.note is not None:
            limit, norm = float(other.limit(call) or 0.0), float(call.argument(2, "norm_type", 2.0))
            self._notify(lambda session: session.clips.after(call.note, other.name, limit, norm))

    def _before_own_clip(self, call: Call) -> None:
        clipper = call.args[0]
        if self._replacement is not None and self._watching() and self._replacement.measures_only(call):
            return
        self._notify(lambda session: session.clips.before(clipper.parameters))

    def _after_own_clip(self, call: Call) -> None:
        clipper, result = call.args[0], call.result
        limits = result.limits
        limit = float(limits) if isinstance(limits, (int, float)) else limits if limits.numel() == 1 else None
        method = str(clipper.clipping)
        self._notify(lambda session: session.clips.after(clipper.parameters, method, limit, result=result, clipper=clipper))

    def _before_clip_in_backward(self, call: Call) -> None:
        self._notify(lambda session: session.clips.before_in_backward(call.args[0], call.args[1]))

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        if is_compiling():
            # PyTorch's own optimizers break the graph around their step anyway; another's may have to be in one graph.
            return self._step_is_eager() if type(optimizer).__module__.startswith("torch.optim.") else None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        alone = self._notify(lambda session: session.before_step(optimizer, closure is not None))
        if not alone:
            return None
        if self._replacement is not None:
            self._replacement.clip_steps_of(optimizer)
        if closure is None or not callable(closure):
            return None
        watched = wrapper(
            closure,
            lambda call: self._notify(lambda session: session.before_evaluation(optimizer)),
            lambda call: self._notify(lambda session: session.after_evaluation(optimizer)),
        )
        return ((args[0], watched, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": watched})

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._notify(lambda session: session.after_step(optimizer))

    @_disable_dynamo
    def _step_is_eager(self) -> None:
        """A graph breaks here, and the wrapper around the step with its hooks is called as it is."""


@_disable_dynamo
def _unread(tell: Callable[[Session], Result], session: Callable[[], Session]) -> Result:
    """Tell a session something while no compiler looks on."""
    return tell(session())


def _nothing(call: Call) -> None:
    pass


def _listed(call: Call, parameters: Any) -> list[Tensor] | None:
    """Return the tensors that a clipping call is given; an iterator, which can be read once, is given on as a new one."""
    if isinstance(parameters, Tensor):
        return [parameters]
    if not isinstance(parameters, Iterable):
        return None
    listed = list(parameters)
    if iter(parameters) is parameters:
        again = (p for p in listed)  # still a generator: torch warns of an empty one
        call.args = (again, *call.args[1:]) if call.args else ()
        call.kwargs = call.kwargs if call.args else {**call.kwargs, "parameters": again}
    return [p for p in listed if isinstance(p, Tensor)]
