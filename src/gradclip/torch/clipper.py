"""A method bound to parameters, with its step count and history."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gradclip.clipping import Clipping, as_clipping
from gradclip.errors import NonFiniteGradientError, TargetError, listed
from gradclip.nonfinite import Skip
from gradclip.result import ClipResult
from gradclip.torch.deciding import Carry, Known
from gradclip.torch.late import LateSkip
from gradclip.torch.rates import effective_rates
from gradclip.torch.saved import pack, unpack
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
        self._skipped = self._in_a_row = 0
        self._late: LateSkip | None = None
        self._overdue: tuple[str, ...] = ()

    @property
    def skipped(self) -> int:
        """Steps dropped because of a non-finite gradient."""
        self._settle()
        return self._skipped

    @property
    def skipped_in_a_row(self) -> int:
        """The same, since the last finite step."""
        self._settle()
        return self._in_a_row

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
            NonFiniteGradientError: under ``Raise``, or after ``patience`` skipped steps in a row; nothing is changed. (Where an
                optimizer on an accelerator drops the step itself, the host learns of it at the next one.)
        """
        self._settle()
        if self._overdue:
            overdue, self._overdue = self._overdue, ()
            self._lose_patience(overdue)
        parameters = self._stages.target.parameters

        def grads() -> list[Tensor | None]:
            return [p.grad for p in parameters]

        def put(i: int, grad: Tensor | None) -> None:
            parameters[i].grad = grad

        known = Known(parameters, self._learning_rates(), self._history, self.step, carry)
        result, self._history = self._stages.run(grads, put, known)
        self.step += 1
        if isinstance(result.skipped, Tensor):
            self._late = LateSkip(result)
        else:
            self._count(result.skipped, result.nonfinite_names)
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
        self.step, self._skipped, self._in_a_row = counters
        self._late, self._overdue = None, ()
        device = next((p.device for p in self.parameters), torch.device("cpu"))
        self._history = {key: value.to(device, copy=True) for key, value in history.items()}

    def __repr__(self) -> str:
        return f"Clipper({self.clipping}, {len(self.names)} parameters, step {self.step})"

    def _learning_rates(self) -> list[float] | None:
        """The learning rate of each parameter, now."""
        if self._optimizer is None or not self._stages.needs_lr:
            return None
        return effective_rates(self._optimizer, self.parameters)

    def _settle(self) -> None:
        """Take in whether the last step was dropped on the device; what there is to raise waits for the next step."""
        late, self._late = self._late, None
        if late is None:
            return
        if not late.read():
            self._in_a_row = 0
            return
        names = late.names()
        self._count_one(names)
        if self._out_of_patience:
            self._overdue = names

    def _count(self, skipped: bool, names: Sequence[str]) -> None:
        if not skipped:
            self._in_a_row = 0
            return
        self._count_one(names)
        self._lose_patience(names)

    def _count_one(self, names: Sequence[str]) -> None:
        self._skipped += 1
        self._in_a_row += 1
        if self._skipped == 1 and not self._out_of_patience:
            warn_skipped(names)

    @property
    def _out_of_patience(self) -> bool:
        policy = self.clipping.nonfinite
        return isinstance(policy, Skip) and self._in_a_row >= policy.patience

    def _lose_patience(self, names: Sequence[str]) -> None:
        if self._out_of_patience:
            after = f": {self._in_a_row} steps in a row were skipped; look for the first NaN, or lower the learning rate"
            raise NonFiniteGradientError(tuple(names), after=after)


def warn_skipped(names: Sequence[str]) -> None:
    """Say that a step was dropped, and where the non-finite gradient is."""
    warnings.warn(
        f"gradclip skipped a step: non-finite gradient in {listed(names)}. All gradients are None, so the "
        "optimizer leaves weights and state as they are; nonfinite='raise' stops here instead.",
        RuntimeWarning,
        stacklevel=4,
    )
