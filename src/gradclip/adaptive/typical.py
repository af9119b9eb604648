"""A multiple of the typical recent norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gradclip._arrays import Array, namespace
from gradclip.adaptive.checks import begins_within, count
from gradclip.adaptive.windows import empty_window, into_window, quantile_of
from gradclip.thresholds import Context, State, Threshold, positive

__all__ = ["Typical"]


@dataclass(frozen=True)
class Typical(Threshold):
    """A multiple of the median of the last clipped norms: ``T = factor * median``, once there are ``after`` of them.

    A median is not moved by the spikes it is there to catch, however heavy their tail. Clipped norms are fed back, so that
    even a run of spikes raises the limit only by ``factor`` in half a window; a norm that really drifts is followed.

    Raises:
        ValueError: ``factor`` < 1, ``window`` < 1, or ``after`` outside [1, window].
    """

    factor: float = 4.0
    window: int = 100
    after: int = 10
    stateful: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", positive(self.factor, "the multiple of the typical norm"))
        object.__setattr__(self, "window", count(self.window, "the window"))
        object.__setattr__(self, "after", count(self.after, "the first step that counts"))
        if self.factor < 1:
            raise ValueError(f"a limit below the typical norm would clip for ever: write a factor >= 1, not {self.factor:g}")
        begins_within(self.after, self.window)

    def init(self, norms: Array) -> State:
        return empty_window(norms, self.window)

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        median, held = quantile_of(state, 0.5)
        limit = xp.where(held >= self.after, self.factor * median, xp.inf * xp.ones_like(norms))
        return limit, into_window(state, xp.where(norms < limit, norms, limit))
