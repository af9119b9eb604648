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

:mod:`gradclip.recipes` gives each a name; :class:`gradclip.Chain` is two of them in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gradclip.nonfinite import Nonfinite, Skip
from gradclip.norms import L2, LINF, Norm
from gradclip.rescales import Clamp, Hard, Rescale
from gradclip.scopes import Global, PerElement, PerGroup, PerUnit, Scope
from gradclip.thresholds import Bounds, Constant, Threshold

if TYPE_CHECKING:
    from gradclip.chain import Chain

__all__ = ["Clipping"]

_DEFAULT_THRESHOLD = Constant(1.0)


@dataclass(frozen=True)
class Clipping:
    """One clipping method: a choice on each of five axes. Immutable; compares by value; ``str`` is its short spelling.

    Raises:
        TypeError: an axis holds something of another axis.
        ValueError: two axes do not fit together.

    >>> Clipping(threshold=Constant(0.5)) == Clipping.parse("global_norm:0.5")
    True
    >>> print(Clipping(PerElement(), L2, Bounds(-0.5, 0.5)))
    value:-0.5,0.5
    """

    scope: Scope = Global()
    norm: Norm = L2
    threshold: Threshold = _DEFAULT_THRESHOLD
    rescale: Rescale = Hard()
    nonfinite: Nonfinite = Skip()

    def __post_init__(self) -> None:
        axes: dict[str, type] = {
            "scope": Scope, "norm": Norm, "threshold": Threshold, "rescale": Rescale, "nonfinite": Nonfinite,
        }  # fmt: skip
        for axis, kind in axes.items():
            given: Any = getattr(self, axis)
            if not isinstance(given, kind):
                article = "an" if kind.__name__[0] in "AEIOU" else "a"
                raise TypeError(f"{axis} must be {article} {kind.__name__}, not {type(given).__name__} ({given!r})")
        if isinstance(self.scope, PerElement):
            _one_way_to_write_elements(self)
        _check_bounds(self)
        _check_clamp(self)
        _check_group_thresholds(self)

    def __str__(self) -> str:
        from gradclip.spelling import spell

        return spell(self)

    @property
    def stages(self) -> tuple[Clipping, ...]:
        """The method itself, alone: a :class:`gradclip.Chain` has two."""
        return (self,)

    @staticmethod
    def parse(spelling: str) -> Clipping | Chain:
        """Read a short spelling (``"agc:0.01"``) or the long form that ``repr`` prints.

        Raises:
            RecipeError: it names no recipe (the nearest is suggested), or an argument is wrong.
        """
        from gradclip.spelling import parse

        return parse(spelling)


def as_clipping(clipping: Clipping | Chain | str) -> Clipping | Chain:
    """Accept a recipe or its spelling wherever a method is asked for."""
    if isinstance(clipping, Clipping):
        return clipping
    from gradclip.chain import Chain

    if isinstance(clipping, Chain):
        return clipping
    if isinstance(clipping, str):
        return Clipping.parse(clipping)
    hint = f": write gradclip.global_norm({clipping:g})" if isinstance(clipping, (int, float)) else ""
    if callable(clipping):
        hint = f": call it first, for example {getattr(clipping, '__name__', 'global_norm')}(1.0)"
    raise TypeError(f"a recipe such as gradclip.global_norm(1.0) is expected, not {type(clipping).__name__}{hint}")


def _one_way_to_write_elements(clipping: Clipping) -> None:
    """Equal methods compare equal: a single element's norm is |x| whatever p is, and a constant limit is an interval."""
    object.__setattr__(clipping, "norm", LINF)
    if isinstance(clipping.threshold, Constant) and isinstance(clipping.threshold.value, float):
        bound = clipping.threshold.value
        object.__setattr__(clipping, "threshold", Bounds(-bound, bound))


def _check_bounds(clipping: Clipping) -> None:
    threshold = clipping.threshold
    if not isinstance(threshold, Bounds):
        return
    if not isinstance(clipping.scope, PerElement):
        raise ValueError(
            f"an interval [low, high] bounds elements, not norms: use PerElement() or Constant({threshold.high:g})"
        )
    if not threshold.symmetric and not isinstance(clipping.rescale, Hard):
        raise ValueError("an interval that is wider on one side fits only Hard(): make it symmetric or change the rescale")


def _check_clamp(clipping: Clipping) -> None:
    if not isinstance(clipping.rescale, Clamp):
        return
    if isinstance(clipping.scope, (PerElement, PerUnit)):
        raise ValueError("Clamp() is for blocks of whole tensors: use Hard() with PerElement()")
    if clipping.norm != LINF:
        raise ValueError(f"Clamp() limits the largest element, so that is what must be measured: use LINF, not {clipping.norm}")


def _check_group_thresholds(clipping: Clipping) -> None:
    threshold, scope = clipping.threshold, clipping.scope
    if not isinstance(threshold, Constant) or not isinstance(threshold.value, tuple):
        return
    if not isinstance(scope, PerGroup):
        raise ValueError(f"{len(threshold.value)} thresholds need as many groups: use group_norm, or one threshold")
    if scope.patterns and len(scope.patterns) != len(threshold.value):
        raise ValueError(
            f"{len(threshold.value)} thresholds for {len(scope.patterns)} groups: give one for each, or one for all"
        )
