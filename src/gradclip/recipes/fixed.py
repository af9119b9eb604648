"""Methods whose threshold is given: a number, a schedule, or a share of the weights."""

from __future__ import annotations

from collections.abc import Mapping

from gradclip.arguments import number
from gradclip.clipping import Clipping
from gradclip.nonfinite import NonfiniteLike
from gradclip.norms import L2, RMS, NormLike
from gradclip.registry import recipe
from gradclip.rescales import Normalize, Soft
from gradclip.scopes import Global, Patterns, PerElement, PerGroup, PerTensor, PerUnit
from gradclip.thresholds import Bounds, Relative, Threshold, ThresholdLike, Trust

__all__ = ["agc", "block_rms", "global_norm", "group_norm", "normalize", "tensor_norm", "trust", "value"]


@recipe("g · min(1, T / ‖g‖)", "Pascanu et al. 2013, arXiv 1211.5063")
def global_norm(
    threshold: ThresholdLike, norm: NormLike = 2, *, exclude: Patterns = (), nonfinite: NonfiniteLike = "skip"
) -> Clipping:
    """Clip all gradients together to one norm, which keeps their direction.

    Args:
        threshold: the largest norm, in the gradient's own unit; > 0. A callable of the step, ``Linear`` or ``Cosine``
            moves it; ``inf`` measures only.
        norm: 1, 2, any p > 0, ``"inf"``, or ``"rms"``.
        exclude: name patterns of parameters to leave alone.
        nonfinite: ``"skip"``, ``"raise"``, ``"zero"`` or ``"propagate"``.

    >>> print(global_norm(1.0), global_norm(5, norm="inf"))
    global_norm:1.0 global_norm:5.0,norm=inf
    """
    return Clipping(Global(exclude), norm, threshold, nonfinite=nonfinite)


@recipe("clamp(gᵢ, low, high)", "Mikolov 2012, PhD thesis, section 3.2.2")
def value(
    low: ThresholdLike, high: float | None = None, *, exclude: Patterns = (), nonfinite: NonfiniteLike = "skip"
) -> Clipping:
    """Clip every element to an interval; bends the direction of the gradient.

    Args:
        low: the lower bound; alone, the largest absolute value (or a schedule of it).
        high: the upper bound. The interval holds 0. A bound beyond the range of a gradient's dtype is the end of that range.
        exclude: name patterns of parameters to leave alone.
        nonfinite: ``"skip"``, ``"raise"``, ``"zero"`` or ``"propagate"``.

    >>> value(0.5) == value(-0.5, 0.5)
    True
    """
    if high is not None and (isinstance(low, Threshold) or callable(low)):
        raise TypeError("a moving bound is symmetric: give it alone, without an upper bound")
    threshold = low if high is None else Bounds(number(low, "the lower bound"), high)
    return Clipping(PerElement(exclude), L2, threshold, nonfinite=nonfinite)


@recipe("gₜ · min(1, T / ‖gₜ‖)", "Keras clipnorm; torch clip_grad_norm_ called per parameter")
def tensor_norm(
    threshold: ThresholdLike, norm: NormLike = 2, *, exclude: Patterns = (), nonfinite: NonfiniteLike = "skip"
) -> Clipping:
    """Clip each tensor to its own norm, so that one wild layer does not silence the others.

    Arguments as in :func:`global_norm`.

    >>> print(tensor_norm(0.5))
    tensor_norm:0.5
    """
    return Clipping(PerTensor(exclude), norm, threshold, nonfinite=nonfinite)


@recipe("g_G · min(1, T_G / ‖g_G‖)", "one norm per functional group, for example encoder and decoder")
def group_norm(
    threshold: ThresholdLike | Mapping[str, float],
    patterns: Patterns = (),
    norm: NormLike = 2,
    *,
    exclude: Patterns = (),
    nonfinite: NonfiniteLike = "skip",
) -> Clipping:
    """Clip each group of parameters to its own norm.

    Args:
        threshold: one for every group, a sequence with one each, or a mapping from name pattern to threshold.
        patterns: name patterns; a parameter belongs to the first that matches, and each must belong to one.
            Without any, the groups are the optimizer's param groups.
        norm: 1, 2, any p > 0, ``"inf"``, or ``"rms"``.
        exclude: name patterns of parameters to leave alone.
        nonfinite: ``"skip"``, ``"raise"``, ``"zero"`` or ``"propagate"``.

    >>> print(group_norm({"encoder.*": 1.0, "*": 0.5}))
    group_norm:1.0|0.5,patterns=encoder.*|*
    """
    if isinstance(threshold, Mapping):
        if patterns:
            raise TypeError("the mapping already names the groups: leave patterns out")
        patterns, threshold = tuple(threshold), tuple(threshold.values())
    return Clipping(PerGroup(exclude, patterns), norm, threshold, nonfinite=nonfinite)


@recipe("gₜ · min(1, T / rms(gₜ))", "optax clip_by_block_rms; Shazeer & Stern 2018, arXiv 1804.04235")
def block_rms(threshold: ThresholdLike = 1.0, *, exclude: Patterns = (), nonfinite: NonfiniteLike = "skip") -> Clipping:
    """Clip each tensor to a root mean square, a size that does not grow with the tensor.

    Arguments as in :func:`global_norm`.

    >>> print(block_rms(2))
    block_rms:2.0
    """
    return Clipping(PerTensor(exclude), RMS, threshold, nonfinite=nonfinite)


@recipe("g · T / ‖g‖, or soft g · (1 + (‖g‖ / T)ᵏ)^(−1/k)", "Zhang et al. 2020, arXiv 1905.11881; SPECTRA, arXiv 2603.14315")
def normalize(
    threshold: ThresholdLike = 1.0,
    norm: NormLike = 2,
    soft: bool | float = False,
    *,
    exclude: Patterns = (),
    nonfinite: NonfiniteLike = "skip",
) -> Clipping:
    """Give every step the same norm, or with ``soft`` bend towards it; small gradients are scaled up unless soft.

    Args:
        threshold, norm, exclude, nonfinite: as in :func:`global_norm`.
        soft: the power k of ``Soft``, True for 1; the larger, the later it bends.

    Scaling up brings no finite element beyond the range of its dtype: where the threshold would, the largest element comes to
    the end of its range and the norm stays below the threshold.

    >>> print(normalize(0.1), normalize(0.1, soft=True), normalize(soft=2))
    normalize:0.1 normalize:0.1,soft=true normalize:soft=2.0
    """
    return Clipping(Global(exclude), norm, threshold, Soft(float(soft)) if soft else Normalize(), nonfinite)


@recipe("g_u · min(1, λ max(‖W_u‖, ε) / ‖g_u‖)", "Brock et al. 2021, arXiv 2102.06171")
def agc(
    ratio: float = 0.01,
    floor: float = 1e-3,
    axis: int | None = None,
    *,
    exclude: Patterns = (),
    nonfinite: NonfiniteLike = "skip",
) -> Clipping:
    """Clip each output unit to a share of its weights' norm: adaptive gradient clipping.

    Args:
        ratio: λ, the largest gradient norm as a share of the weight norm.
        floor: ε, the least weight norm that counts, so that weights starting at zero can move.
        axis: which axis counts output units; by default what the layer says (transposed convolutions included).
        exclude: name patterns to leave alone; the paper leaves out the last linear layer: ``exclude="head.*"``.
        nonfinite: ``"skip"``, ``"raise"``, ``"zero"`` or ``"propagate"``.

    >>> print(agc(exclude="head.*"))
    agc:exclude=head.*
    """
    return Clipping(PerUnit(exclude, axis), L2, Relative(ratio, floor), nonfinite=nonfinite)


@recipe("T = η max(‖W‖, ε) / lr", "the LARS and LARC family: You et al. 2017, arXiv 1708.03888")
def trust(
    eta: float = 0.02,
    floor: float = 1e-3,
    per_tensor: bool = False,
    *,
    exclude: Patterns = (),
    nonfinite: NonfiniteLike = "skip",
) -> Clipping:
    """Let no step be longer than a share of the weights; for SGD, where the step is lr times the gradient.

    Args:
        eta: the largest step as a share of the weights' norm.
        floor: the least weight norm that counts.
        per_tensor: each tensor against its own weights, instead of all together.
        exclude, nonfinite: as in :func:`global_norm`.

    >>> print(trust(0.03), trust(0.03, per_tensor=True))
    trust:0.03 trust:0.03,per_tensor=true
    """
    return Clipping(PerTensor(exclude) if per_tensor else Global(exclude), L2, Trust(eta, floor), nonfinite=nonfinite)
