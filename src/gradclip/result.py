"""What a clipping step found and did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradclip._arrays import Array, namespace

__all__ = ["ClipResult"]


@dataclass(frozen=True, eq=False)
class ClipResult:
    """The norms before and after one clipping step: plain data, complete; values stay on the device until they are read.

    Norms are in the method's own norm (the largest ``|x|`` for element clipping) and in the gradient's unit, float64.
    Parameters left out by ``exclude`` are listed in ``tensor_norms`` but are not part of ``norm``.

    >>> import torch, gradclip
    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3.0, 4.0])
    >>> result = gradclip.clip_({"w": p}, gradclip.global_norm(1.0))
    >>> result
    ClipResult(norm=5, clipped_norm=1, coefficient=0.2, clipped, worst='w')
    >>> float(result.norm), bool(result.clipped), p.grad
    (5.0, True, tensor([0.6000, 0.8000]))
    """

    names: tuple[str, ...]
    """The name of each parameter, in the order of ``tensor_norms``."""
    norm: Array
    """The norm of all gradients together, before clipping; inf where it is beyond float64, finite though the gradients are."""
    clipped_norm: Array
    """The norm of all gradients together, after clipping (0 where the step was skipped)."""
    tensor_norms: Array
    """The norm of each parameter's gradient before clipping, 0 where there is none."""
    clipped_tensor_norms: Array
    """The norm of each parameter's gradient after clipping."""
    limits: Array | float
    """The limit of each block (one for all where they share it)."""
    factors: Array
    """What each block was multiplied by; empty where elements are clamped."""
    clipped: Array | bool
    """Whether anything was changed."""
    finite: Array | bool
    """Whether every gradient was finite when it came in."""
    nonfinite_names: tuple[str, ...] = ()
    """The parameters with a NaN or Inf, where the policy looks at them."""
    skipped: Array | bool = False
    """The step was dropped: every gradient is None, or a fused optimizer left everything as it was."""

    @property
    def coefficient(self) -> Array:
        """The norm after as a share of the norm before; for one block, the factor it was multiplied by."""
        if not self.skipped and self.factors.shape == (1,):
            return self.factors[0]
        xp = namespace(self.norm)
        return xp.where(self.norm > 0, self.clipped_norm / self.norm, xp.ones_like(self.norm))

    @property
    def worst(self) -> str:
        """The parameter with the largest norm before clipping (the first non-finite one, if any); reads the device."""
        if not self.names:
            return ""
        if self.nonfinite_names:
            return self.nonfinite_names[0]
        norms = self.tensor_norms
        xp = namespace(norms)
        return self.names[int(xp.argmax(xp.where(xp.isnan(norms), xp.full_like(norms, xp.inf), norms)))]

    def asdict(self) -> dict[str, Any]:
        """Return plain Python values, for a log: the norms, the flags and the norm of every parameter."""
        return {
            "norm": float(self.norm),
            "clipped_norm": float(self.clipped_norm),
            "coefficient": float(self.coefficient),
            "clipped": bool(self.clipped),
            "finite": bool(self.finite),
            "skipped": bool(self.skipped),
            "worst": self.worst,
            "tensor_norms": dict(zip(self.names, map(float, self.tensor_norms), strict=True)),
        }

    def __repr__(self) -> str:
        state = "skipped" if self.skipped else "clipped" if bool(self.clipped) else "not clipped"
        if not bool(self.finite):
            state += ", non-finite"
        return (
            f"ClipResult(norm={float(self.norm):.6g}, clipped_norm={float(self.clipped_norm):.6g}, "
            f"coefficient={float(self.coefficient):.6g}, {state}, worst={self.worst!r})"
        )
