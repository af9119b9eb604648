"""A method bound to parameters, with its step count and history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gradclip.clipping import Clipping, as_clipping
from gradclip.errors import TargetError
from gradclip.result import ClipResult
from gradclip.torch.deciding import Carry, Known
from gradclip.torch.late import LateSkip
from gradclip.torch.rates import effective_rates
from gradclip.torch.saved import pack, unpack
from gradclip.torch.skips import SKIPPED_STEP, Skips
from gradclip.torch.stages import stages_for
from gradclip.torch.targets import Clippable

if TYPE_CHECKING:
    from gradclip.chain import Chain

__all__ = ["Clipper"]


class Clipper:
    """Clip the same parameters step after step, keeping the threshold's history and counting skipped steps.

    Args:
        target: a model, an optimizer, named parameters or parameters; a tied parameter counts once.
        clipping: a recipe, or its spelling.
        optimizer: its param groups are the groups; every parameter must be one of its own.

    Raises:
        TypeError: gradients instead of parameters, or something that is neither.
        TargetError: an exhausted iterator, a parameter the optimizer does not own, or a scope that does not fit.

    >>> model = torch.nn.Linear(2, 1)
    >>> clipper = Clipper(model, "global_norm:linear(10,1,1000)")
    >>> model(torch.ones(1, 2)).sum().backward()
    >>> result = clipper.clip_()
    >>> clipper.step, sorted(clipper.state_dict())
    (1, ['recipe', 'skipped', 'skipped_in_a_row', 'step', 'version'])
    """

    def __init__(
        self, target: Clippable, clipping: Clipping | Chain | str, *, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        self._stages = stages_for(as_clipping(clipping), target, optimizer)
        self._stages.check()  # a scope that does not fit is said here, not at the first step
        self._optimizer = target if isinstance(target, torch.optim.Optimizer) else optimizer
        if self._stages.needs_lr and self._optimizer is None:
            raise TargetError(f"{self.clipping} needs the learning rate: use gradclip.attach(optimizer, ...)")
        self._history: Mapping[str, Tensor] = {}
        self.step = 0
        """Steps taken so far, the skipped ones included."""
        self._skips = Skips(self.clipping.nonfinite, SKIPPED_STEP)

    @property
    def skipped(self) -> int:
        """Steps dropped because of a non-finite gradient."""
        self._skips.settle()
        return self._skips.total

    @property
    def skipped_in_a_row(self) -> int:
        """The same, since the last finite step."""
        self._skips.settle()
        return self._skips.in_a_row

    @property
    def clipping(self) -> Clipping | Chain:
        """The method."""
        return self._stages.clipping

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The parameters, each once."""
        return self._stages.target.parameters

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters, in order."""
        return self._stages.target.names

    def clip_(self, carry: Carry | None = None) -> ClipResult:
        """Clip the parameters' gradients in place, as one step.

        Args:
            carry: is given a factor that all gradients share, before they are multiplied; where it returns True it takes
                care of that, and the gradients are left as they are (:class:`~gradclip.torch.fused.FusedScale`).

        Raises:
            TargetError: a gradient that does not have its parameter's shape, where that matters; nothing is changed.
            StateError: a parameter has another shape than the history was learnt with; nothing is changed.
            NonFiniteGradientError: under ``Raise``, or after ``patience`` skipped steps in a row; nothing is changed. (Where an
                optimizer on an accelerator drops the step itself, the host learns of it at the next one.)
        """
        self._skips.settle()
        self._skips.raise_overdue()
        parameters = self._stages.target.parameters

        def grads() -> list[Tensor | None]:
            return [p.grad for p in parameters]

        def put(i: int, grad: Tensor | None) -> None:
            parameters[i].grad = grad

        self._stages = self._stages.up_to_date(grads, self._history)
        known = Known(parameters, self._learning_rates(), self._history, self.step, carry)
        result, self._history = self._stages.run(grads, put, known)
        self.step += 1
        if isinstance(result.skipped, Tensor):
            self._skips.count_later(LateSkip(result))
        elif result.skipped:
            self._skips.count(result.nonfinite_names)
        else:
            self._skips.forgive()
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return a flat dict: the recipe's spelling, the counters, and the threshold's arrays as they are."""
        counters = (self.step, self.skipped, self.skipped_in_a_row)
        return pack(str(self.clipping), counters, {key: value.clone() for key, value in self._history.items()})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where a saved state left off, bit for bit.

        Raises:
            StateError: the state is of another version or recipe, or incomplete; nothing is loaded.
        """
        counters, history = unpack(str(self.clipping), self._stages.init(), state)
        self.step, *skips = counters
        self._skips.load(*skips)
        device = next((p.device for p in self.parameters), torch.device("cpu"))
        self._history = {key: value.to(device, copy=True) for key, value in history.items()}

    def __repr__(self) -> str:
        return f"Clipper({self.clipping}, {len(self.names)} parameters, step {self.step})"

    def _learning_rates(self) -> list[float] | None:
        """The learning rate of each parameter, now."""
        if self._optimizer is None or not self._stages.needs_lr:
            return None
        return effective_rates(self._optimizer, self.parameters)
