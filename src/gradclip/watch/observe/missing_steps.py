"""What a run leaves undone: optimizers that never step, and ``backward`` calls that no step follows."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gradclip.watch.record.stream import Stream, version_of

__all__ = ["MissingSteps"]


@dataclass
class UnsteppedOptimizer:
    """An optimizer that has not stepped yet."""

    optimizer: weakref.ref[torch.optim.Optimizer]
    backwards: int = 0
    tensors: list[weakref.ref[Tensor]] = field(default_factory=list)
    """Those of its parameters that were seen with a gradient, and that no optimizer steps."""

    weights: tuple[weakref.ref[Tensor], int] | None = None
    """Its first parameter, and how often that had been written to before the first ``backward``."""

    def is_due(self) -> bool:
        """Whether to look for gradients after this ``backward``: after the 1st, 2nd, 4th, 8th, ..., until there are some."""
        self.backwards += 1
        return not self.tensors and not self.backwards & (self.backwards - 1)

    def find_gradients(self) -> None:
        """Find the parameters that have a gradient."""
        optimizer = self.optimizer()
        groups = [] if optimizer is None else optimizer.param_groups
        self.tensors = [weakref.ref(p) for group in groups for p in group["params"] if p.grad is not None]

    def remember_weights(self) -> None:
        """Remember how the weights are, once."""
        optimizer = self.optimizer() if self.weights is None else None
        first = None if optimizer is None else next((p for group in optimizer.param_groups for p in group["params"]), None)
        if first is not None:
            self.weights = weakref.ref(first), version_of(first)

    @property
    def moved(self) -> str:
        """The class of the optimizer, if it lives and something has written to its weights since."""
        optimizer, parameter = self.optimizer(), None if self.weights is None else self.weights[0]()
        if optimizer is None or parameter is None or self.weights is None or version_of(parameter) == self.weights[1]:
            return ""
        return type(optimizer).__name__

    def leave_to(self, stream: Stream) -> None:
        """What another optimizer steps is not missing: one that is wrapped around it, or took its place."""
        self.tensors = [r for r in self.tensors if (p := r()) is None or not stream.has(p)]


class MissingSteps:
    """Know which optimizers have not stepped; once all have, this costs next to nothing."""

    def __init__(self) -> None:
        self._waiting: dict[int, UnsteppedOptimizer] = {}
        self._stepped: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
        self._backwards = 0

    def made(self, optimizer: torch.optim.Optimizer, number: int) -> None:
        """An optimizer was made; said again when its state is loaded."""
        self._waiting.setdefault(number, UnsteppedOptimizer(weakref.ref(optimizer)))

    def before_backward(self) -> None:
        """``backward`` is about to run."""
        self._backwards += 1
        for waiting in self._waiting.values():
            waiting.remember_weights()

    def after_backward(self) -> None:
        """Gradients have appeared."""
        for waiting in [one for one in self._waiting.values() if one.is_due()]:
            waiting.find_gradients()
            for stream in list(self._stepped.values()):
                waiting.leave_to(stream)

    def step(self) -> None:
        """Some optimizer has stepped, whether it is watched or not."""
        self._backwards = 0

    def stepped(self, stream: Stream) -> None:
        """A step of this stream is recorded."""
        self.step()
        if stream.number in self._stepped:
            return
        self._stepped[stream.number] = stream
        self._waiting.pop(stream.number, None)
        for waiting in self._waiting.values():
            waiting.leave_to(stream)

    @property
    def moved(self) -> str:
        """The class of an optimizer whose ``step()`` was never seen although its weights have moved; else nothing."""
        return next((name for waiting in self._waiting.values() if (name := waiting.moved)), "")

    def meta(self) -> dict[str, Any]:
        """Return what the run file says of it."""
        counts = {number: len(waiting.tensors) for number, waiting in sorted(self._waiting.items())}
        unstepped = [{"optimizer": number, "tensors": count} for number, count in counts.items() if count]
        return {"unstepped": unstepped, "backwards_after": self._backwards}
