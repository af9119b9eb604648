"""A method bound to parameters, with its step count and history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gradclip.backends import reshaped
from gradclip.clipping import Clipping, as_clipping
from gradclip.errors import TargetError
from gradclip.result import ClipResult
from gradclip.torch.by_tensor import saved_form, used_form
from gradclip.torch.carry_history import carried_over
from gradclip.torch.current_parameters import CurrentParameters
from gradclip.torch.late import LateSkip
from gradclip.torch.not_compiled import not_compiled
from gradclip.torch.pipeline import OfParameters, run
from gradclip.torch.plan import Plan, plan_for
from gradclip.torch.rates import effective_rates
from gradclip.torch.saved import pack, unpack
from gradclip.torch.skips import SKIPPED_STEP, Skips
from gradclip.torch.step import Carry, StepInputs
from gradclip.torch.targets import Clippable

if TYPE_CHECKING:
    from gradclip.chain import Chain

__all__ = ["Clipper"]


class Clipper:
    """Clip the same parameters step after step, keeping the threshold's history and counting skipped steps.

    A model or an optimizer that has got other parameters is looked up again: what was learnt of those that stay is kept.

    Args:
        target: a model, an optimizer, named parameters or parameters; a tied parameter counts once.
        clipping: a recipe, or its spelling.
        optimizer: its param groups are the groups; every parameter must be one of its own.
        group: a ``ProcessGroup``, or a ``DeviceMesh`` of one dimension, over whose ranks every plain tensor is cut by hand.
            (DTensors say themselves how they are cut.)

    Raises:
        TypeError: gradients instead of parameters, or something that is neither.
        TargetError: an exhausted iterator, a parameter the optimizer does not own, one that is a rank's shard or has no shape
            yet, or a scope that does not fit.

    >>> model = torch.nn.Linear(2, 1)
    >>> clipper = Clipper(model, "global_norm:linear(10,1,1000)")
    >>> model(torch.ones(1, 2)).sum().backward()
    >>> result = clipper.clip_()
    >>> clipper.step, sorted(clipper.state_dict())
    (1, ['recipe', 'skipped', 'skipped_in_a_row', 'step', 'version'])
    """

    def __init__(
        self,
        target: Clippable,
        clipping: Clipping | Chain | str,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        group: Any = None,
    ) -> None:
        self._plan = plan_for(as_clipping(clipping), target, optimizer, group)
        self._gradients = OfParameters(self._plan.target.parameters)
        self.current = CurrentParameters(target, self._plan.target, optimizer, group)
        """Where the parameters were found, and are looked up again."""
        if self._plan.needs_lr and self.current.optimizer is None:
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
        return self._plan.clipping

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The parameters, each once."""
        return self._plan.target.parameters

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters, in order."""
        return self._plan.target.names

    @not_compiled
    def clip_(self, carry: Carry | None = None) -> ClipResult:
        """Clip the parameters' gradients in place, as one step.

        Args:
            carry: is given a factor that all gradients share, before they are multiplied; where it returns True it takes
                care of that, and the gradients are left as they are (:class:`~gradclip.torch.fused.FusedScale`).

        Raises:
            TargetError: a gradient that does not have its parameter's shape, where that matters, or a method that does not fit
                the parameters that there are now; nothing is changed.
            StateError: a parameter has another shape than the history was learnt with; nothing is changed.
            NonFiniteGradientError: under ``Raise``, or after ``patience`` skipped steps in a row; nothing is changed. (Where an
                optimizer on an accelerator drops the step itself, the host learns of it at the next one.)
        """
        if self.current.changed() or (self._plan.goes_by_shape and reshaped(self._gradients.read(), self._plan.target.shapes)):
            self._lay_out_anew()
        skips, plan = self._skips, self._plan
        if skips.unsettled:
            skips.settle()
            skips.raise_overdue()
        lrs = self._learning_rates() if plan.needs_lr else None
        step = StepInputs(plan.target.parameters, lrs, self._history, self.step, carry)
        result, self._history = run(plan, self._gradients, step)
        self.step += 1
        if isinstance(result.skipped, Tensor):
            skips.count_later(LateSkip(result))
        elif result.skipped:
            skips.count(result.nonfinite_names)
        else:
            skips.in_a_row = 0
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return a flat dict: the recipe's spelling, the counters, and the threshold's arrays, also before the first step.

        The history of single elements (``spam``) has the shapes of the parameters, and is sharded as they are; all else is
        the same on every rank. So ``torch.distributed.checkpoint`` takes a clipper as it is, and brings it back on another
        number of ranks.
        """
        if self.current.changed():
            self._lay_out_anew()
        counters = (self.step, self.skipped, self.skipped_in_a_row)
        history = self._history or self._plan.init(self._device)
        return pack(str(self.clipping), counters, {k: v.clone() for k, v in saved_form(self._plan, history).items()})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where a saved state left off, bit for bit.

        Raises:
            StateError: the state is of another version, recipe or model, incomplete or damaged; nothing is loaded.
        """
        if self.current.changed():
            self._lay_out_anew()
        counters, history = unpack(str(self.clipping), saved_form(self._plan, self._plan.init()), state)
        self._history = {k: v.to(self._device, copy=True) for k, v in used_form(self._plan, history).items()}
        self.step, *skips = counters
        self._skips.load(*skips)

    @property
    def _device(self) -> torch.device:
        return next((p.device for p in self.parameters if not p.is_meta), torch.device("cpu"))

    def __repr__(self) -> str:
        return f"Clipper({self.clipping}, {len(self.names)} parameters, step {self.step})"

    def _lay_out_anew(self) -> None:
        """Follow parameters that have become others, or have other shapes; what was learnt of those that stay is kept."""
        plan = Plan(self.clipping, self.current.find())
        self._history = carried_over(self._history, self._plan, plan)
        self._plan, self._gradients = plan, OfParameters(plan.target.parameters)
        self.current.remember(plan.target)

    def _learning_rates(self) -> list[float] | None:
        """The learning rate of each parameter, now."""
        optimizer = self.current.optimizer
        return None if optimizer is None else effective_rates(optimizer, self.parameters)
