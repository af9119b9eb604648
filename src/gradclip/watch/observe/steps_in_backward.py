"""Optimizers that step inside ``backward``, each as soon as its gradient is there: one step of the training together."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradclip.runs.schema import ABSENT
from gradclip.watch.record.stream import Stream, grad_norms, parameters_of

__all__ = ["StepsInBackward"]


@dataclass
class Part:
    """What one optimizer's step has used."""

    parameters: list[Tensor]
    before: Tensor
    after: Tensor | None = None


@dataclass
class StepsInBackward:
    """Gather the parts of one ``backward``; called by the session."""

    stream: Stream | None = None
    """The stream that steps in the ``backward`` that is under way."""
    before_clipping: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """The norm that each gradient had which was clipped as it appeared, with its parameter, by the latter's identity."""
    _parts: list[Part] = field(default_factory=list)
    under_way: Part | None = None
    """That of the optimizer whose step it is."""

    def begin(self, optimizer: torch.optim.Optimizer, stream: Stream) -> None:
        """An optimizer's step begins, with the gradients as they are."""
        self.stream = stream
        parameters = parameters_of(optimizer)
        now = grad_norms(parameters)
        before = [self.before_clipping.get(id(p), (p, norm))[1] for p, norm in zip(parameters, now.unbind(), strict=True)]
        clipped = not self.before_clipping.keys().isdisjoint(map(id, parameters))
        self.under_way = Part(parameters, torch.stack(before), now) if clipped else Part(parameters, now)

    def clips(self, parameter: Tensor) -> None:
        """A gradient is about to be clipped, as it has appeared."""
        self.before_clipping[id(parameter)] = parameter, grad_norms([parameter])[0]

    def clipped(self) -> None:
        """Its gradients were clipped inside of it."""
        if self.under_way is not None:
            self.under_way.after = grad_norms(self.under_way.parameters)

    def end(self) -> None:
        """The step is over."""
        if self.under_way is not None:
            self._parts.append(self.under_way)
            self.under_way = None

    def take(self, stream: Stream) -> tuple[Tensor, Tensor | None]:
        """``backward`` is over: return the norms of all tensors before and after clipping, None where nothing was clipped."""
        parts, self._parts, self.under_way, self.stream, self.before_clipping = self._parts, [], None, None, {}
        before = _joined(stream, [(part.parameters, part.before) for part in parts])
        if all(part.after is None for part in parts):
            return before, None
        return before, _joined(stream, [(p.parameters, p.before if p.after is None else p.after) for p in parts])


def _joined(stream: Stream, parts: list[tuple[list[Tensor], Tensor]]) -> Tensor:
    norms = parts[0][1].new_full((len(stream),), ABSENT)
    for parameters, values in parts:
        places = torch.tensor([stream.place_of(p) for p in parameters], device=norms.device)
        norms[places] = torch.where(values >= 0, values.to(norms), norms[places])
    return norms
