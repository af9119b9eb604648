"""A percentile of all norms so far, in bounded memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from gradclip._arrays import Array, namespace
from gradclip.thresholds import Context, State, Threshold

__all__ = ["Percentile"]


@dataclass(frozen=True)
class Percentile(Threshold):
    """A percentile of all norms so far, this one included: AutoClip (Seetharaman et al. 2020, arXiv 2007.14469).

    The paper keeps every norm; here a histogram with 2 % wide logarithmic bins from 1e-12 to 1e12 counts them, so memory
    stays at 2,791 numbers a block and the percentile is exact to 1 %. Unclipped norms are counted, as in the paper:
    clipped ones would drag the percentile down for ever. At 10 it clips about 90 % of the steps.

    Raises:
        ValueError: ``percent`` outside (0, 100].
    """

    percent: float = 10.0
    stateful: ClassVar[bool] = True
    LEAST: ClassVar[float] = 1e-12
    WIDTH: ClassVar[float] = math.log(1.02)
    BINS: ClassVar[int] = math.ceil(math.log(1e24) / math.log(1.02))

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise ValueError(f"a percentile lies between 0 and 100, not {self.percent}")
        object.__setattr__(self, "percent", float(self.percent))

    def init(self, norms: Array) -> State:
        xp = namespace(norms)
        return {"counts": xp.zeros((self.BINS, norms.shape[0]), dtype=norms.dtype, device=norms.device)}

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        one = xp.ones_like(norms)
        place = xp.floor(xp.log(xp.where(norms > 0, norms, one) / self.LEAST) / self.WIDTH)
        place = xp.where(place < 0, 0 * one, xp.where(place > self.BINS - 1, (self.BINS - 1) * one, place))
        bins = xp.arange(self.BINS, dtype=norms.dtype, device=norms.device)[:, None]
        counts = state["counts"] + xp.astype((bins == place[None, :]) & (norms > 0)[None, :], norms.dtype)
        so_far = xp.cumulative_sum(counts, axis=0)
        rank = (so_far[-1, :] - 1) * self.percent / 100
        found = xp.astype(xp.argmax(xp.astype(so_far > rank[None, :], xp.int32), axis=0), norms.dtype)
        limits = self.LEAST * xp.exp((found + 0.5) * self.WIDTH)
        return xp.where(so_far[-1, :] > 0, limits, xp.inf * one), {"counts": counts}
