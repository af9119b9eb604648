"""Gradient norms in the unit of the step, where the gradients themselves are still multiplied by a scale."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["norms_at_step", "divide_by_scale"]


def norms_at_step(norms: Tensor, optimizer: torch.optim.Optimizer | None) -> Tensor:
    """Return the norms that a step will use: a fused optimizer divides by ``grad_scale`` inside its kernel.

    It is a scaler's, or an attachment's for clipping.
    """
    scale = getattr(optimizer, "grad_scale", None)
    return divide_by_scale(norms, scale) if isinstance(scale, Tensor) else norms


def divide_by_scale(norms: Tensor, scale: Tensor) -> Tensor:
    """Divide norms by a gradient scale; what is absent stays so."""
    return torch.where(norms >= 0, norms / scale.to(norms), norms)
