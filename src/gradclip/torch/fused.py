"""Let a fused optimizer multiply by the coefficient inside its own pass, in place of a pass over the gradients before it."""

from __future__ import annotations

from operator import methodcaller
from typing import Any

import torch
from torch import Tensor

from gradclip.torch.current_parameters import CurrentParameters
from gradclip.torch.targets import Target

__all__ = ["FusedScale"]

_SMALLEST = 1e-30
"""Factors below this (or above its inverse) are close to where float32 ends."""
_EXACT_ENOUGH = (torch.float32, torch.bfloat16, torch.float16)
"""The divisor is a float32: float64 gradients would lose their last digits."""
_is_fused = methodcaller("get", "fused")


class FusedScale:
    """The divisor ``optimizer.grad_scale``, by which fused Adam, AdamW, SGD and Adagrad divide every gradient as they read it.

    It was made for ``GradScaler``; the divided gradients are also written back, so ``p.grad`` is clipped after the step.

    Args:
        optimizer: any optimizer; one that is not fused takes no divisor.
        hook: the number of the pre-hook that clips: hooks behind it would still see (or add to) gradients that are not scaled.
        current: what is clipped.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, hook: int, current: CurrentParameters) -> None:
        self._optimizer: Any = optimizer
        self._hook = hook
        self._current = current
        self._looked_at: Target | None = None
        self._plain = False
        self.divisor: Tensor | None = None
        """The one that is set, which somebody has to clear."""
        self._skip: Tensor | None = None
        self._before: dict[str, None] = {}

    def __call__(self, factor: float | Tensor, finite: Tensor | None = None) -> bool:
        """Have every gradient multiplied by a factor in the coming step; False, and nothing is set, where that cannot be.

        Args:
            factor: a number, or on the device.
            finite: on the device: where it is False, the optimizer drops the step (``found_inf``).
        """
        if isinstance(factor, float) and not _SMALLEST < factor < 1 / _SMALLEST:
            return False
        if not self._takes_all() or (finite is not None and not self._takes_skips()):
            return False
        if finite is not None:
            self._skip = self._optimizer.found_inf = (~finite).float().reshape(())
        if isinstance(factor, Tensor):
            self.divisor = (1.0 / factor).float().reshape(())
        else:
            self.divisor = torch.tensor(1.0 / factor, dtype=torch.float32)
        self._before = {"grad_scale": None} if hasattr(self._optimizer, "grad_scale") else {}  # GradScaler deletes its own
        self._optimizer.grad_scale = self.divisor
        return True

    def clear(self) -> None:
        """Take the divisor away, after the step or where the last one failed on its way."""
        if self.divisor is not None and getattr(self._optimizer, "grad_scale", None) is self.divisor:
            del self._optimizer.grad_scale
            vars(self._optimizer).update(self._before)
        if self._skip is not None and getattr(self._optimizer, "found_inf", None) is self._skip:
            del self._optimizer.found_inf
        self.divisor = self._skip = None

    def _takes_skips(self) -> bool:
        """Whether nobody else has set the flag, and momentum has begun: a first step that is dropped would leave it unset."""
        optimizer = self._optimizer
        if getattr(optimizer, "found_inf", None) is not None:
            return False
        moving = (p for group in optimizer.param_groups if group.get("momentum") for p in group["params"] if p.grad is not None)
        return all(optimizer.state.get(p, {}).get("momentum_buffer") is not None for p in moving)

    def _takes_all(self) -> bool:
        """Whether one fused pass divides just what is clipped, and nobody else has set a divisor or looks at the gradients."""
        optimizer, target = self._optimizer, self._current.target
        if target is not self._looked_at:
            self._looked_at, self._plain = target, all(p.dtype in _EXACT_ENOUGH for p in target.parameters)
        return (
            self._plain
            and self._current.complete
            and getattr(optimizer, "_step_supports_amp_scaling", False)
            and getattr(optimizer, "grad_scale", None) is None
            and next(reversed(optimizer._optimizer_step_pre_hooks)) == self._hook
            and all(map(_is_fused, optimizer.param_groups))
        )
