"""What is known of a step that is under way."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

from torch import Tensor

__all__ = ["OpenStep"]


@dataclass(slots=True)
class OpenStep:
    """A stream's next step, from the first clipping or the beginning of ``step()`` to its end."""

    before: Tensor | None = None
    after: Tensor | None = None
    threshold: Tensor | float | None = None
    skipped: Tensor | bool = False
    found_inf: Tensor | None = None
    """A fused optimizer is told by the scaler, on the device, that its step is dropped."""
    in_step: bool = False
    evaluations: int = 0
    """How often the optimizer has called its closure; the first time, the weights are those that the step starts from."""
    amp_scale: Tensor | None = None
    weights: Tensor | None = None
    clipped: tuple[weakref.ref[Tensor], int] | None = None
    """A parameter that was clipped before ``step()``, and which gradient it had: it stands for all of them."""
    marks: list[tuple[int, int]] | None = None
    """All gradients after they were clipped, once a ``backward`` begins that may add to them."""

    def forget_clipping(self) -> None:
        """What was clipped is not what will be stepped."""
        self.before = self.after = self.threshold = self.clipped = self.marks = None
        self.skipped = False
