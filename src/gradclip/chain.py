"""Two methods in turn: some published ones are no single point of the algebra, but one point after another."""

from __future__ import annotations

from dataclasses import dataclass

from gradclip.clipping import Clipping, as_clipping
from gradclip.nonfinite import Nonfinite

__all__ = ["Chain"]


@dataclass(frozen=True)
class Chain:
    """Clip with ``first``, and what comes out of it with ``second``; goes wherever a ``Clipping`` does.

    Each keeps its own history. A step that ``first`` skips ends there. A result tells the norms before ``first`` and after
    ``second``, both in the norm of ``second``. Stable-SPAM (2025, arXiv 2502.17055) is written like this::

        Chain(Clipping(PerTensor(), LINF, Mean(0.999), Clamp()), Clipping(PerTensor(), L2, Moments(0.7, 0.9), Normalize()))

    Raises:
        TypeError: one of them is not a ``Clipping`` or its spelling.
        ValueError: they have two policies for NaN and Inf.

    >>> chain = Chain("value:0.5", "global_norm:1.0")
    >>> print(chain)
    Chain('value:-0.5,0.5', 'global_norm:1.0')
    >>> Clipping.parse(str(chain)) == chain
    True
    """

    first: Clipping
    second: Clipping

    def __post_init__(self) -> None:
        for name in ("first", "second"):
            stage = as_clipping(getattr(self, name))
            if not isinstance(stage, Clipping):
                raise TypeError(f"{name} must be one method, not a chain: two are all that a chain holds")
            object.__setattr__(self, name, stage)
        if self.first.nonfinite != self.second.nonfinite:
            raise ValueError(
                f"both methods of a chain need the same policy for NaN and Inf, not {self.first.nonfinite} and "
                f"{self.second.nonfinite}"
            )

    def __str__(self) -> str:
        from gradclip.spelling import spell

        return spell(self)

    @property
    def stages(self) -> tuple[Clipping, ...]:
        """The methods in their order."""
        return self.first, self.second

    @property
    def nonfinite(self) -> Nonfinite:
        """What happens to a NaN or Inf."""
        return self.first.nonfinite
