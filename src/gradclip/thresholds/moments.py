"""Rules over averages that are corrected for their start: the two halves of Stable-SPAM's treatment of the gradient."""

from __future__ import annotations

from dataclasses import dataclass

from gradclip._arrays import Array, namespace
from gradclip.arguments import set_fields, share
from gradclip.thresholds.columns import where_active, zeros
from gradclip.thresholds.rule import Context, State, Threshold

__all__ = ["Mean", "Moments"]


@dataclass(frozen=True)
class Mean(Threshold):
    """The moving average of the norms, this one included: AdaClip of Stable-SPAM (2025, arXiv 2502.17055), with ``Clamp``.

    ``T = m / (1 - beta^t)`` with ``m = beta * m + (1 - beta) * n``; with n the largest element of a tensor, what exceeds the
    average of the largest is clamped. Unclipped norms are averaged, as in the paper: an average of what it has clipped
    itself could only fall. So a spike stays in it for about ``1 / (1 - beta)`` steps. Departures from the published code:
    t counts the steps in which the block had a gradient, where the code counts those of the run, and clamps a tensor that
    comes late to almost nothing.

    Raises:
        ValueError: ``beta`` outside (0, 1).
    """

    beta: float = 0.999
    stateful = True

    def __post_init__(self) -> None:
        set_fields(self, beta=share(self.beta, "beta"))

    def init(self, norms: Array) -> State:
        return zeros(norms, "mean", "weight")

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        weight, gain = _step(state["weight"], self.beta)
        following = {"mean": state["mean"] + (norms - state["mean"]) * gain, "weight": weight}
        after = where_active(xp, norms > 0, following, state)
        return xp.where(after["mean"] > 0, after["mean"], xp.inf), after


@dataclass(frozen=True)
class Moments(Threshold):
    """The mean norm over the root mean square norm: AdaGN of Stable-SPAM (2025, arXiv 2502.17055), with ``Normalize``.

    ``T = m' / sqrt(v')`` with ``m = beta1 * m + (1 - beta1) * n`` and ``v = beta2 * v + (1 - beta2) * n^2``, both divided by
    their own ``1 - beta^t``: about 1 while the norm is steady, less where it varies. This is no limit in the gradient's unit:
    every gradient comes out with a norm near 1 whatever it was before, which an optimizer that divides by the gradient's
    size (Adam) does not mind, and SGD does. Norms are averaged as they are, this one included; the first is brought to 1.

    Departures from the published code: its epsilon of 1e-8 is left out, which shortens the step of a tensor whose norm is
    that small; and t counts the steps in which the block had a gradient. The root of v is kept instead of v, so that no
    square overflows.

    Raises:
        ValueError: ``beta1`` or ``beta2`` outside (0, 1).
    """

    beta1: float = 0.7
    beta2: float = 0.9
    stateful = True

    def __post_init__(self) -> None:
        set_fields(self, beta1=share(self.beta1, "beta1"), beta2=share(self.beta2, "beta2"))

    def init(self, norms: Array) -> State:
        return zeros(norms, "mean", "weight1", "rms", "weight2")

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        weight1, gain1 = _step(state["weight1"], self.beta1)
        weight2, gain2 = _step(state["weight2"], self.beta2)
        scale = xp.maximum(norms, state["rms"])
        scale = xp.where(scale > 0, scale, xp.ones_like(scale))
        before = (state["rms"] / scale) ** 2
        following = {
            "mean": state["mean"] + (norms - state["mean"]) * gain1,
            "weight1": weight1,
            "rms": scale * xp.sqrt(before + ((norms / scale) ** 2 - before) * gain2),
            "weight2": weight2,
        }
        after = where_active(xp, norms > 0, following, state)
        begun = after["rms"] > 0
        return xp.where(begun, after["mean"] / xp.where(begun, after["rms"], xp.ones_like(norms)), xp.inf), after


def _step(weight: Array, beta: float) -> tuple[Array, Array]:
    """Return the sum of the weights so far, ``1 - beta^t``, and the share of the newest norm in the corrected average.

    That share is exactly 1 in the first step, so that a steady norm is its own average without rounding.
    """
    following = beta * weight + (1 - beta)
    return following, (1 - beta) / following
