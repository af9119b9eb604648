"""Methods that find their threshold themselves."""

from __future__ import annotations

import math

from gradclip.adaptive import Ema, EmaRatio, Growth, Outlier, Percentile, Quantile, SecondMoment, Trust, ZScore
from gradclip.clipping import Clipping
from gradclip.moving import Warmup
from gradclip.nonfinite import Nonfinite, as_nonfinite
from gradclip.norms import L2
from gradclip.recipes.registry import Patterns, recipe
from gradclip.rescales import Band, Drop, Hard
from gradclip.scopes import Global, PerElement, PerGroup, PerTensor, Scope, patterns_of

__all__ = ["adagc", "aggc", "autoclip", "norm_growth", "quantile", "skip_step", "spam", "trust", "zclip"]


@recipe("T = η max(‖W‖, ε) / lr", "the LARS and LARC family: You et al. 2017, arXiv 1708.03888")
def trust(
    eta: float = 0.02,
    floor: float = 1e-3,
    per_tensor: bool = False,
    *,
    exclude: Patterns = (),
    nonfinite: Nonfinite | str = "skip",
) -> Clipping:
    """Let no step be longer than a share of the weights; for SGD, where the step is lr times the gradient.

    Args:
        eta: the largest step as a share of the weights' norm.
        floor: the least weight norm that counts.
        per_tensor: each tensor against its own weights, instead of all together.
        exclude: name patterns of parameters to leave alone.
        nonfinite: ``"skip"``, ``"raise"``, ``"zero"`` or ``"propagate"``.

    >>> print(trust(0.03), trust(0.03, per_tensor=True))
    trust:0.03 trust:0.03,per_tensor=true
    """
    return Clipping(_scope(per_tensor, exclude), L2, Trust(eta, floor), Hard(), as_nonfinite(nonfinite))


@recipe("T = percentile of all ‖g‖ so far", "AutoClip: Seetharaman et al. 2020, arXiv 2007.14469")
def autoclip(percent: float = 10.0, *, exclude: Patterns = (), nonfinite: Nonfinite | str = "skip") -> Clipping:
    """Clip to a low percentile of every norm seen so far; at 10 about nine steps in ten are clipped.

    Args:
        percent: which percentile, in (0, 100].
        exclude: name patterns of parameters to leave alone.
        nonfinite: ``"skip"``, ``"raise"``, ``"zero"`` or ``"propagate"``.

    >>> print(autoclip(25))
    autoclip:25.0
    """
    return Clipping(Global(patterns_of(exclude)), L2, Percentile(percent), Hard(), as_nonfinite(nonfinite))


@recipe("T = quantile of the last norms", "QC-SGD, arXiv 2309.17316")
def quantile(
    q: float = 0.9,
    window: int = 1000,
    per_tensor: bool = False,
    *,
    exclude: Patterns = (),
    nonfinite: Nonfinite | str = "skip",
) -> Clipping:
    """Clip to a quantile of the recent norms, which follows a norm that drifts.

    Args:
        q: which quantile, in (0, 1].
        window: how many norms are remembered.
        per_tensor: each tensor against its own history, instead of all together.
        exclude: name patterns of parameters to leave alone.
        nonfinite: ``"skip"``, ``"raise"``, ``"zero"`` or ``"propagate"``.

    >>> print(quantile(0.85, 100))
    quantile:0.85,100
    """
    return Clipping(_scope(per_tensor, exclude), L2, Quantile(q, window), Hard(), as_nonfinite(nonfinite))


@recipe("T = μ + z²σ / s where s = (‖g‖ − μ) / σ > z", "ZClip 2025, arXiv 2504.02507")
def zclip(
    z: float = 2.5,
    alpha: float = 0.97,
    warmup: int = 25,
    cap: float = math.inf,
    *,
    exclude: Patterns = (),
    nonfinite: Nonfinite | str = "skip",
) -> Clipping:
    """Clip the spikes alone: norms far above their moving average, the further the harder.

    Args:
        z: how many deviations above the average make a spike.
        alpha: the memory of the averages, in (0, 1).
        warmup: steps that are only measured.
        cap: a constant limit besides (the published code sets 1.0).
        exclude: name patterns of parameters to leave alone.
        nonfinite: ``"skip"``, ``"raise"``, ``"zero"`` or ``"propagate"``.

    >>> print(zclip())
    zclip:2.5
    """
    return Clipping(Global(patterns_of(exclude)), L2, ZScore(z, alpha, warmup, cap), Hard(), as_nonfinite(nonfinite))


@recipe("Tₜ = ratio · EMA of the tensor's clipped norms", "AdaGC 2025, arXiv 2502.11034")
def adagc(
    ratio: float = 1.04,
    beta: float = 0.99,
    warmup: int = 100,
    warmup_norm: float = 1.0,
    *,
    exclude: Patterns = (),
    nonfinite: Nonfinite | str = "skip",
) -> Clipping:
    """Clip each tensor to little more than its own recent norm.

    Args:
        ratio: the limit as a multiple of the moving average.
        beta: the memory of the average, in (0, 1).
        warmup: steps during which all tensors together are clipped to ``warmup_norm``.
        warmup_norm: that norm.
        exclude: name patterns of parameters to leave alone.
        nonfinite: ``"skip"``, ``"raise"``, ``"zero"`` or ``"propagate"``.

    >>> print(adagc())
    adagc:1.04
    """
    rule = EmaRatio(ratio, beta, warmup, warmup_norm)
    return Clipping(PerTensor(patterns_of(exclude)), L2, rule, Hard(), as_nonfinite(nonfinite))


@recipe("low S ≤ ‖g_G‖ ≤ high S, S the group's EMA", "AGGC 2026, arXiv 2601.11864")
def aggc(
    high: float | Warmup = 1.5,
    low: float | Warmup = 0.5,
    beta: float = 0.99,
    patterns: Patterns = (),
    max_gain: float = 10.0,
    min_gain: float = 0.0,
    *,
    exclude: Patterns = (),
    nonfinite: Nonfinite | str = "skip",
) -> Clipping:
    """Keep each group's norm in a band around its moving average; norms below it are scaled up, at most tenfold.

    Args:
        high: the upper edge as a multiple of the average; ``Linear`` or ``Cosine`` moves it. Below 1 it needs ``min_gain``.
        low: the lower edge as a share of the upper one; ``Linear`` or ``Cosine`` moves it, 0 leaves small norms alone.
        beta: the memory of the average, in (0, 1).
        patterns: name patterns that make the groups; the optimizer's param groups by default.
        max_gain: the most that a norm is scaled up by.
        min_gain: the least that a norm is scaled down to, as a share of itself; 0 for no such limit.
        exclude: name patterns of parameters to leave alone.
        nonfinite: ``"skip"``, ``"raise"``, ``"zero"`` or ``"propagate"``.

    The paper moves both edges along a line between two shares of the run. Its scripts set, where here the lower edge is a
    share of the upper: LoRA 0.6 to 0.7 of the average over [0.4, 0.7] of the run, beta 0.95, nothing scaled up, nothing
    below 0.9; GRPO 0.7 to 0.999 over [0.6, 0.8], beta 0.99, factors within [0.9, 1.1], and a lower edge of 0.98 of the
    average, which lies above the upper one until the switch is nearly over: there is no such band, and 1 is the nearest.

    >>> print(aggc(patterns="*"))
    aggc:1.5,patterns=*
    >>> from gradclip import Linear
    >>> print(aggc(Linear(0.6, 0.7, 300, after=400), 0, 0.95, "*", min_gain=0.9))  # the LoRA script's, in 1,000 steps
    aggc:linear(0.6,0.7,300,400),0.0,0.95,patterns=*,min_gain=0.9
    """
    scope = PerGroup(patterns_of(exclude), patterns_of(patterns))
    return Clipping(scope, L2, Ema(high, beta, min_gain), Band(low, max_gain), as_nonfinite(nonfinite))


@recipe("|gᵢ| ≤ √(5000 vᵢ)", "SPAM 2025, arXiv 2501.06842")
def spam(
    factor: float = 5000.0,
    beta: float = 0.999,
    warmup: int = 20,
    *,
    exclude: Patterns = (),
    nonfinite: Nonfinite | str = "skip",
) -> Clipping:
    """Clip single elements that are far larger than their own history; keeps one number an element.

    Args:
        factor: how many times its average square an element's square may be.
        beta: the memory of that average, in (0, 1).
        warmup: steps that are only measured.
        exclude: name patterns of parameters to leave alone.
        nonfinite: ``"skip"``, ``"raise"``, ``"zero"`` or ``"propagate"``.

    >>> print(spam())
    spam:5000.0
    """
    return Clipping(PerElement(patterns_of(exclude)), L2, SecondMoment(factor, beta, warmup), Hard(), as_nonfinite(nonfinite))


@recipe("T = 1.01 · the previous norm", "Fira 2024, arXiv 2410.01623")
def norm_growth(
    ratio: float = 1.01,
    floor: float = 0.01,
    *,
    exclude: Patterns = (),
    nonfinite: Nonfinite | str = "skip",
) -> Clipping:
    """Let each tensor's norm grow only so much from one step to the next.

    Args:
        ratio: the largest growth.
        floor: the previous norm counts as at least this share of the largest so far.
        exclude: name patterns of parameters to leave alone.
        nonfinite: ``"skip"``, ``"raise"``, ``"zero"`` or ``"propagate"``.

    >>> print(norm_growth())
    norm_growth:1.01
    """
    return Clipping(PerTensor(patterns_of(exclude)), L2, Growth(ratio, floor), Hard(), as_nonfinite(nonfinite))


@recipe("skip where ‖g‖ > μ + 6σ of the last 128", "OLMo-core's skip-step optimizer")
def skip_step(
    sigma: float = 6.0,
    window: int = 128,
    after: int = 64,
    *,
    exclude: Patterns = (),
    nonfinite: Nonfinite | str = "skip",
) -> Clipping:
    """Drop a step whose norm is far outside the recent ones; weights and optimizer state stay as they were.

    Args:
        sigma: how many deviations above the mean is far.
        window: how many norms are remembered.
        after: how many of them it takes to begin.
        exclude: name patterns of parameters to leave alone.
        nonfinite: ``"skip"``, ``"raise"``, ``"zero"`` or ``"propagate"``.

    >>> print(skip_step())
    skip_step:6.0
    """
    return Clipping(Global(patterns_of(exclude)), L2, Outlier(sigma, window, after), Drop(), as_nonfinite(nonfinite))


def _scope(per_tensor: bool, exclude: Patterns) -> Scope:
    return PerTensor(patterns_of(exclude)) if per_tensor else Global(patterns_of(exclude))
