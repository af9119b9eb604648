"""Methods in turn: some published ones are no single point of the algebra, but one point after another."""

from __future__ import annotations

from dataclasses import dataclass

from gradclip._cached import cached_property
from gradclip.arguments import set_fields
from gradclip.clipping import Clipping, as_clipping
from gradclip.nonfinite import Nonfinite
from gradclip.spelling import METHODS, spell

__all__ = ["Chain"]


@dataclass(frozen=True, init=False, repr=False)
class Chain:
    """Clip with the first method, what comes out of it with the next, and so on; goes wherever a ``Clipping`` does.

    Each keeps its own history. A step that one of them skips ends there. A result tells the norms before the first and after
    the last, both in the norm of the last. Stable-SPAM (2025, arXiv 2502.17055) is written like this::

        Chain(Clipping(PerTensor(), LINF, Mean(0.999), Clamp()), Clipping(PerTensor(), L2, Moments(0.7, 0.9), Normalize()))

    Args:
        stages: two methods or more, or their spellings; of a chain among them, the methods it holds.

    Raises:
        TypeError: one of them is not a method or its spelling.
        ValueError: they are fewer than two, or have several policies for NaN and Inf.

    >>> chain = Chain("value:0.5", "tensor_norm:2.0", "global_norm:1.0")
    >>> print(chain)
    Chain('value:-0.5,0.5', 'tensor_norm:2.0', 'global_norm:1.0')
    >>> Clipping.parse(str(chain)) == chain
    True
    """

    stages: tuple[Clipping, ...]

    def __init__(self, *stages: Clipping | Chain | str) -> None:
        flat = tuple(one for stage in stages for one in as_clipping(stage).stages)
        if len(flat) < 2:
            raise ValueError("a chain is of two methods or more: write one alone as it is")
        policies = {stage.nonfinite: None for stage in flat}
        if len(policies) > 1:
            raise ValueError(
                f"all methods of a chain need the same policy for NaN and Inf, not {' and '.join(map(repr, policies))}"
            )
        set_fields(self, stages=flat)

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self.stages))})"

    def __str__(self) -> str:
        return self._spelling

    @cached_property
    def _spelling(self) -> str:
        """Found once: it is asked for at every step that is recorded."""
        return spell(self)

    @property
    def nonfinite(self) -> Nonfinite:
        """What happens to a NaN or Inf."""
        return self.stages[0].nonfinite


METHODS["Chain"] = Chain
