"""A skipped step that the host learns of one step late, so that it never has to wait for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from gradclip.result import ClipResult

__all__ = ["LateSkip"]


class LateSkip:
    """Whether a step was skipped, on its way to the host.

    Args:
        result: of the step; ``result.skipped`` is on the device.
    """

    def __init__(self, result: ClipResult) -> None:
        self.result = result
        flag: Tensor = result.skipped  # type: ignore[assignment]
        self._flag, self._arrived = flag, None
        if flag.device.type == "cuda":
            self._flag = torch.empty_like(flag, device="cpu", pin_memory=True).copy_(flag, non_blocking=True)
            self._arrived = torch.cuda.current_stream(flag.device).record_event()

    def read(self) -> bool:
        """Return it; waits for that step, not for what was started since."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._flag)

    def names(self) -> tuple[str, ...]:
        """Return the parameters with a NaN or Inf; reads the device."""
        finite = self.result.tensor_norms.isfinite().tolist()
        return tuple(name for name, is_finite in zip(self.result.names, finite, strict=True) if not is_finite)
