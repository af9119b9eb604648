"""Methods that learn their threshold from the run."""

from __future__ import annotations

import math

from gradclip import thresholds
from gradclip.chain import Chain
from gradclip.clipping import Clipping
from gradclip.nonfinite import NonfiniteLike
from gradclip.norms import L2, LINF
from gradclip.registry import recipe
from gradclip.rescales import Band, Clamp, Drop, Normalize
from gradclip.scopes import Global, Patterns, PerElement, PerGroup, PerTensor

__all__ = [
    "adagc", "aggc", "auto", "autoclip", "norm_growth", "quantile", "skip_step", "spam", "stable_spam", "zclip",
]  # fmt: skip


@recipe("T = percentile of all ‖g‖ so far", "AutoClip: Seetharaman et al. 2020, arXiv 2007.14469")
def autoclip(percent: float = 10.0, *, exclude: Patterns = (), nonfinite: NonfiniteLike = "skip") -> Clipping:
    """Clip to a low percentile of every norm seen so far; at 10 about nine steps in ten are clipped.

    Args:
        percent: which percentile, in (0, 100].
        exclude, nonfinite: as in :func:`global_norm`.

    >>> print(autoclip(25))
    autoclip:25.0
    """
    return Clipping(Global(exclude), L2, thresholds.Percentile(percent), nonfinite=nonfinite)


@recipe("T = quantile of the last norms", "QC-SGD, arXiv 2309.17316")
def quantile(
    q: float = 0.9, window: int = 1000, per_tensor: bool = False, *, exclude: Patterns = (), nonfinite: NonfiniteLike = "skip"
) -> Clipping:
    """Clip to a quantile of the recent norms, which follows a norm that drifts.

    Args:
        q: which quantile, in (0, 1].
        window: how many norms are remembered.
        per_tensor: each tensor against its own history, instead of all together.
        exclude, nonfinite: as in :func:`global_norm`.

    >>> print(quantile(0.85, 100))
    quantile:0.85,100
    """
    return Clipping(
        PerTensor(exclude) if per_tensor else Global(exclude), L2, thresholds.Quantile(q, window), nonfinite=nonfinite
    )


@recipe("T = μ + z²σ / s where s = (‖g‖ − μ) / σ > z", "ZClip 2025, arXiv 2504.02507")
def zclip(
    z: float = 2.5,
    alpha: float = 0.97,
    warmup: int = 25,
    cap: float = math.inf,
    *,
    exclude: Patterns = (),
    nonfinite: NonfiniteLike = "skip",
) -> Clipping:
    """Clip the spikes alone: norms far above their moving average, the further the harder.

    Args:
        z: how many deviations above the average make a spike.
        alpha: the memory of the averages, in (0, 1).
        warmup: steps that are only measured.
        cap: a constant limit besides (the published code sets 1.0).
        exclude, nonfinite: as in :func:`global_norm`.

    >>> print(zclip())
    zclip
    """
    return Clipping(Global(exclude), L2, thresholds.ZScore(z, alpha, warmup, cap), nonfinite=nonfinite)


@recipe("Tₜ = ratio · EMA of the tensor's clipped norms", "AdaGC 2025, arXiv 2502.11034")
def adagc(
    ratio: float = 1.04,
    beta: float = 0.99,
    warmup: int = 100,
    warmup_norm: float = 1.0,
    *,
    exclude: Patterns = (),
    nonfinite: NonfiniteLike = "skip",
) -> Clipping:
    """Clip each tensor to little more than its own recent norm.

    Args:
        ratio: the limit as a multiple of the moving average.
        beta: the memory of the average, in (0, 1).
        warmup: steps during which all tensors together are clipped to ``warmup_norm``.
        warmup_norm: that norm.
        exclude, nonfinite: as in :func:`global_norm`.

    >>> print(adagc())
    adagc
    """
    return Clipping(PerTensor(exclude), L2, thresholds.EmaRatio(ratio, beta, warmup, warmup_norm), nonfinite=nonfinite)


@recipe("low S ≤ ‖g_G‖ ≤ high S, S the group's EMA", "AGGC 2026, arXiv 2601.11864")
def aggc(
    high: float | thresholds.Warmup = 1.5,
    low: float | thresholds.Warmup = 0.5,
    beta: float = 0.99,
    patterns: Patterns = (),
    max_gain: float = 10.0,
    min_gain: float = 0.0,
    *,
    exclude: Patterns = (),
    nonfinite: NonfiniteLike = "skip",
) -> Clipping:
    """Keep each group's norm in a band around its moving average; norms below it are scaled up, at most tenfold.

    Args:
        high: the upper edge as a multiple of the average; ``Linear`` or ``Cosine`` moves it. Below 1 it needs ``min_gain``.
        low: the lower edge as a share of the upper one; ``Linear`` or ``Cosine`` moves it, 0 leaves small norms alone.
        beta: the memory of the average, in (0, 1).
        patterns: name patterns that make the groups; the optimizer's param groups by default.
        max_gain: the most that a norm is scaled up by.
        min_gain: the least that a norm is scaled down to, as a share of itself; 0 for no such limit.
        exclude, nonfinite: as in :func:`global_norm`.

    No finite element is scaled up beyond the range of its dtype: the largest then comes to its end.

    The paper moves both edges along a line between two shares of the run. Its scripts set, where here the lower edge is a
    share of the upper: LoRA 0.6 to 0.7 of the average over [0.4, 0.7] of the run, beta 0.95, nothing scaled up, nothing
    below 0.9; GRPO 0.7 to 0.999 over [0.6, 0.8], beta 0.99, factors within [0.9, 1.1], and a lower edge of 0.98 of the
    average, which lies above the upper one until the switch is nearly over: there is no such band, and 1 is the nearest.

    >>> print(aggc(patterns="*"))
    aggc:patterns=*
    >>> from gradclip import Linear
    >>> print(aggc(Linear(0.6, 0.7, 300, after=400), 0, 0.95, "*", min_gain=0.9))  # the LoRA script's, in 1,000 steps
    aggc:linear(0.6,0.7,300,400),0.0,0.95,patterns=*,min_gain=0.9
    """
    return Clipping(PerGroup(exclude, patterns), L2, thresholds.Ema(high, beta, min_gain), Band(low, max_gain), nonfinite)


@recipe("|gᵢ| ≤ √(5000 vᵢ)", "SPAM 2025, arXiv 2501.06842")
def spam(
    factor: float = 5000.0, beta: float = 0.999, warmup: int = 20, *, exclude: Patterns = (), nonfinite: NonfiniteLike = "skip"
) -> Clipping:
    """Clip single elements that are far larger than their own history; keeps one number an element.

    Args:
        factor: how many times its average square an element's square may be.
        beta: the memory of that average, in (0, 1).
        warmup: steps that are only measured.
        exclude, nonfinite: as in :func:`global_norm`.

    >>> print(spam())
    spam
    """
    return Clipping(PerElement(exclude), L2, thresholds.SecondMoment(factor, beta, warmup), nonfinite=nonfinite)


@recipe("T = 1.01 · the previous norm", "Fira 2024, arXiv 2410.01623")
def norm_growth(
    ratio: float = 1.01, floor: float = 0.01, *, exclude: Patterns = (), nonfinite: NonfiniteLike = "skip"
) -> Clipping:
    """Let each tensor's norm grow only so much from one step to the next.

    Args:
        ratio: the largest growth.
        floor: the previous norm counts as at least this share of the largest so far.
        exclude, nonfinite: as in :func:`global_norm`.

    >>> print(norm_growth())
    norm_growth
    """
    return Clipping(PerTensor(exclude), L2, thresholds.Growth(ratio, floor), nonfinite=nonfinite)


@recipe("skip where ‖g‖ > μ + 6σ of the last 128", "OLMo-core's skip-step optimizer")
def skip_step(
    sigma: float = 6.0, window: int = 128, after: int = 64, *, exclude: Patterns = (), nonfinite: NonfiniteLike = "skip"
) -> Clipping:
    """Drop a step whose norm is far outside the recent ones; weights and optimizer state stay as they were.

    Args:
        sigma: how many deviations above the mean is far.
        window: how many norms are remembered.
        after: how many of them it takes to begin.
        exclude, nonfinite: as in :func:`global_norm`.

    >>> print(skip_step())
    skip_step
    """
    return Clipping(Global(exclude), L2, thresholds.Outlier(sigma, window, after), Drop(), nonfinite)


@recipe("clamp to mean max |gₜ|, then gₜ · (mean ‖gₜ‖ / rms ‖gₜ‖) / ‖gₜ‖", "Stable-SPAM 2025, arXiv 2502.17055")
def stable_spam(
    beta: float = 0.999, beta1: float = 0.7, beta2: float = 0.9, *, exclude: Patterns = (), nonfinite: NonfiniteLike = "skip"
) -> Chain:
    """Clamp each tensor's spikes to its mean largest element, then bring it to a norm near 1; for Adam, not for SGD.

    The scale of the gradient is lost: every tensor comes out with a norm near 1, whatever it was. Adam divides by the
    gradient's own size and does not mind; under SGD it is wrong, as every tensor then moves by about lr at each step.
    Departures from the published code: what exceeds the limit is clamped to it; there it is multiplied by limit / max |g|,
    which leaves an element just above the limit smaller than one just below. The other departures are those of
    ``Mean`` and ``Moments``; the momentum resets of the paper's optimizer are no part of clipping. No finite element is scaled
    up beyond the range of its dtype.

    Args:
        beta: the memory of the mean largest element, in (0, 1).
        beta1: the memory of the mean norm, in (0, 1).
        beta2: the memory of the mean square norm, in (0, 1).
        exclude, nonfinite: as in :func:`global_norm`.

    >>> print(stable_spam())
    stable_spam
    """
    scope = PerTensor(exclude)
    return Chain(
        Clipping(scope, LINF, thresholds.Mean(beta), Clamp(), nonfinite),
        Clipping(scope, L2, thresholds.Moments(beta1, beta2), Normalize(), nonfinite),
    )


@recipe("T = min(s · clip(median, 0.03 … 0.045 ‖W‖ / lr), 4 · median ‖g‖)", "this library; benchmarks/thresholds")
def auto(
    eta: float = 0.03, factor: float = 4.0, window: int = 100, *, exclude: Patterns = (), nonfinite: NonfiniteLike = "skip"
) -> Clipping:
    """Keep steps short beside the weights, and norms near their recent median; nothing to tune.

    Three things go wrong, and each has its own sign. A step that is too long for the weights shows at once in
    ``lr ||g|| / ||W||``: a limit from step 0, for optimizers whose step grows with the gradient (SGD). A run whose
    gradients are all longer than that takes steps of one length and never settles: they shorten, to 0.4 of it at last
    (``Stride``). A gradient that is out of line with those before it shows against their median, after ten steps, for every
    optimizer.

    Args:
        eta: the largest step as a share of the weights' norm; half as much again where that is what a typical gradient makes.
        factor: the largest norm as a multiple of the recent median.
        window: how many norms are remembered.
        exclude, nonfinite: as in :func:`global_norm`.

    >>> print(auto())
    auto
    """
    rule = thresholds.Minimum(thresholds.Stride(eta, window=window), thresholds.Typical(factor, window))
    return Clipping(Global(exclude), L2, rule, nonfinite=nonfinite)
