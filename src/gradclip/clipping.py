"""The entrance: every clipping method is one point of a small algebra.

A gradient is cut into blocks; each block has a norm ``n`` and a limit ``T``, and is multiplied by a factor that depends
on their ratio, ``g <- g * phi(n / T)``. The classical methods, written out::

    Pascanu et al. 2013, "clip by global norm"   Clipping(Global(), L2, Constant(1.0), Hard())
    Mikolov 2012, "clip by value"                Clipping(PerElement(), LINF, Bounds(-0.5, 0.5), Hard())
    Keras clipnorm, "clip by norm"               Clipping(PerTensor(), L2, Constant(1.0), Hard())
    per param group                              Clipping(PerGroup(), L2, Constant((1.0, 0.5)), Hard())
    optax clip_by_block_rms, Adafactor           Clipping(PerTensor(), RMS, Constant(1.0), Hard())
    normalised gradient descent                  Clipping(Global(), L2, Constant(1.0), Normalize())
    smoothed clipping, Zhang et al. 2020         Clipping(Global(), L2, Constant(1.0), Soft())
    Brock et al. 2021, adaptive clipping (AGC)   Clipping(PerUnit(), L2, Relative(0.01, floor=1e-3), Hard())

:mod:`gradclip.recipes` gives each a name; :class:`gradclip.Chain` is several of them in turn. Numbers and words do for
most members: ``Clipping(PerTensor(), "rms", 1.0)`` is Adafactor's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradclip._cached import cached_property
from gradclip.arguments import set_fields
from gradclip.nonfinite import Nonfinite, NonfiniteLike, as_nonfinite
from gradclip.norms import L2, LINF, Norm, NormLike, as_norm
from gradclip.rescales import Hard, Rescale
from gradclip.scopes import Global, PerGroup, Scope
from gradclip.spelling import METHODS, parse, spell
from gradclip.thresholds import Bounds, Constant, Threshold, ThresholdLike, as_threshold

if TYPE_CHECKING:
    from gradclip.chain import Chain

__all__ = ["Clipping"]


@dataclass(frozen=True, init=False)
class Clipping:
    """One clipping method: a choice on each of five axes. Immutable; compares by value; ``str`` is its short spelling.

    Args:
        scope: what is measured together.
        norm: how big a block is: a ``Norm``, or 1, 2, any p > 0, ``"inf"``, ``"rms"``.
        threshold: how big it may be: a rule, a number, one number a group, or a function of the step.
        rescale: what happens above it.
        nonfinite: what happens to a NaN or Inf: a policy, or ``"skip"``, ``"raise"``, ``"zero"``, ``"propagate"``.

    Raises:
        TypeError: an axis holds something of another axis.
        ValueError: two axes do not fit together.

    >>> Clipping(threshold=0.5) == Clipping.parse("global_norm:0.5")
    True
    >>> from gradclip import PerElement
    >>> print(Clipping(PerElement(), threshold=Bounds(-0.5, 0.5)))
    value:-0.5,0.5
    """

    scope: Scope
    norm: Norm
    threshold: Threshold
    rescale: Rescale
    nonfinite: Nonfinite

    def __init__(
        self,
        scope: Scope = Global(),
        norm: NormLike = L2,
        threshold: ThresholdLike = 1.0,
        rescale: Rescale = Hard(),
        nonfinite: NonfiniteLike = "skip",
    ) -> None:
        if not isinstance(scope, Scope):
            raise TypeError(f"scope must be a Scope, not {type(scope).__name__} ({scope!r})")
        if not isinstance(rescale, Rescale):
            raise TypeError(f"rescale must be a Rescale, not {type(rescale).__name__} ({rescale!r})")
        norm, threshold = as_norm(norm), as_threshold(threshold)
        if scope.per_element:
            norm, threshold = LINF, _interval(threshold)
        set_fields(self, scope=scope, norm=norm, threshold=threshold, rescale=rescale, nonfinite=as_nonfinite(nonfinite))
        _check_bounds(self)
        _check_elementwise(self)
        _check_groups(self)

    def __str__(self) -> str:
        return self._spelling

    @cached_property
    def _spelling(self) -> str:
        """Found once: it is asked for at every step that is recorded."""
        return spell(self)

    @property
    def stages(self) -> tuple[Clipping, ...]:
        """The method itself, alone: a :class:`gradclip.Chain` has several."""
        return (self,)

    @staticmethod
    def parse(spelling: str) -> Clipping | Chain:
        """Read a short spelling (``"agc:0.01"``) or the long form that ``repr`` prints.

        Raises:
            RecipeError: it names no recipe (the nearest is suggested), or an argument is wrong.
        """
        return parse(spelling)


METHODS["Clipping"] = Clipping


def as_clipping(clipping: Clipping | Chain | str) -> Clipping | Chain:
    """Accept a recipe or its spelling wherever a method is asked for."""
    if isinstance(clipping, Clipping):
        return clipping
    if isinstance(clipping, str):
        return parse(clipping)
    if isinstance(clipping, tuple(METHODS.values())):
        return clipping
    hint = f": write gradclip.global_norm({clipping:g})" if isinstance(clipping, (int, float)) else ""
    if callable(clipping):
        hint = f": call it first, for example {getattr(clipping, '__name__', 'global_norm')}(1.0)"
    raise TypeError(f"a recipe such as gradclip.global_norm(1.0) is expected, not {type(clipping).__name__}{hint}")


def _interval(threshold: Threshold) -> Threshold:
    """Write a constant limit of elements as an interval, so that equal methods compare equal."""
    if isinstance(threshold, Constant) and isinstance(threshold.value, float):
        return Bounds(-threshold.value, threshold.value)
    return threshold


def _check_bounds(clipping: Clipping) -> None:
    threshold = clipping.threshold
    if isinstance(threshold, Bounds) and not clipping.scope.per_element:
        raise ValueError(
            f"an interval [low, high] bounds elements, not norms: use PerElement() or Constant({threshold.high:g})"
        )
    if not threshold.symmetric and not clipping.rescale.caps:
        raise ValueError("an interval that is wider on one side fits only Hard(): make it symmetric or change the rescale")


def _check_elementwise(clipping: Clipping) -> None:
    if not clipping.rescale.elementwise:
        return
    name = type(clipping.rescale).__name__
    if clipping.scope.splits_tensors:
        raise ValueError(f"{name}() is for blocks of whole tensors: use Hard() with PerElement()")
    if clipping.norm != LINF:
        raise ValueError(
            f"{name}() limits the largest element, so that is what must be measured: use LINF, not {clipping.norm}"
        )


def _check_groups(clipping: Clipping) -> None:
    groups, scope = clipping.threshold.groups, clipping.scope
    if groups is None:
        return
    if not isinstance(scope, PerGroup):
        raise ValueError(f"{groups} thresholds need as many groups: use group_norm, or one threshold")
    if scope.patterns and len(scope.patterns) != groups:
        raise ValueError(f"{groups} thresholds for {len(scope.patterns)} groups: give one for each, or one for all")
