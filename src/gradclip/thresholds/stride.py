"""How long a step may be beside the weights, and when it has to shorten."""

from __future__ import annotations

from dataclasses import dataclass

from gradclip._arrays import Array, namespace
from gradclip._cached import cached_property
from gradclip.arguments import begins_within, number, positive, set_fields, share, whole
from gradclip.thresholds.columns import zeros
from gradclip.thresholds.given import Trust
from gradclip.thresholds.rule import Context, State, Threshold
from gradclip.thresholds.windows import empty_window, into_window, quantile_of

__all__ = ["Stride"]


@dataclass(frozen=True)
class Stride(Threshold):
    """A step as long as is typical, between two shares of the weights, that shortens where every step is the longest allowed.

    ``T = s * clip(median, eta ||W|| / lr, reach * eta ||W|| / lr)`` with the median of the last norms, unclipped (the upper
    end until there are ``after`` of them), and ``lr`` as :class:`Trust` reads it. A gradient that is out of line is so held
    to ``eta``, one that is steadily large may go further.

    Where the median itself lies above the longest stride, every step has that length whatever its gradient: normalised
    descent, which wanders around a minimum unless its steps shorten like 1/sqrt(t) (Cutkosky & Mehta 2020, arXiv 2002.03305,
    Zhang et al. 2020, arXiv 1905.11881). So ``s = max(least, 1 / sqrt(1 + 4 k / window))``, where k counts those steps, once
    the window is full. It does not grow again.

    Raises:
        ValueError: ``eta`` not > 0, ``reach`` < 1, ``least`` outside (0, 1], ``window`` < 1, or ``after`` outside [1, window].
    """

    eta: float = 0.03
    reach: float = 1.5
    least: float = 0.4
    window: int = 100
    after: int = 10
    needs_weights = True
    needs_lr = True
    stateful = True

    def __post_init__(self) -> None:
        set_fields(
            self,
            eta=positive(self.eta, "the share eta"),
            reach=number(self.reach, "the reach"),
            least=share(self.least, "the least share of a stride", one=True),
            window=whole(self.window, "the window"),
            after=whole(self.after, "the first step that counts"),
        )
        if not self.reach >= 1:
            raise ValueError(f"the longest stride is a multiple of the shortest: write a reach >= 1, not {self.reach:g}")
        begins_within(self.after, self.window)

    @cached_property
    def _trust(self) -> Trust:
        return Trust(self.eta)

    def init(self, norms: Array) -> State:
        return {**empty_window(norms, self.window), **zeros(norms, "strides")}

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        median, held = quantile_of(xp, state, 0.5)
        one = xp.ones_like(norms)
        left = xp.maximum(self.least * one, 1 / xp.sqrt(1 + 4 * state["strides"] / self.window))
        shortest = left * self._trust.limits(norms, {}, context)[0]
        longest = self.reach * shortest
        typical = xp.maximum(shortest, xp.where(median < longest, median, longest))
        long = (held >= self.window) & (median > longest) & (norms > 0)
        strides = state["strides"] + xp.astype(long, norms.dtype)
        return xp.where(held >= self.after, typical, longest), {**into_window(xp, state, norms), "strides": strides}
