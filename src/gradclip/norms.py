"""The norm axis: how big is a block of gradients?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["L1", "L2", "LINF", "RMS", "Norm", "NormLike", "as_norm"]


@dataclass(frozen=True)
class Norm:
    """Measure a block by its p-norm, or by the p-mean of its elements.

    ``n = (sum |x|^p)^(1/p)``; for ``p = inf`` the largest ``|x|``; with ``mean`` the sum is
    divided by the number of elements first, so that ``Norm(2, mean=True)`` is the root mean square.

    Raises:
        ValueError: ``p`` is zero, negative or NaN.

    >>> Norm(2.0), Norm(float("inf")), RMS, Norm(3)
    (L2, LINF, RMS, Norm(p=3.0))
    """

    p: float
    mean: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", float(self.p))
        if not self.p > 0:
            raise ValueError(f"a norm's p must be > 0, not {self.p}: write 1, 2, inf or any p > 0")
        if self.mean and math.isinf(self.p):
            raise ValueError("the largest element has no mean: write Norm(inf)")

    def __repr__(self) -> str:
        named = {(1.0, False): "L1", (2.0, False): "L2", (math.inf, False): "LINF", (2.0, True): "RMS"}
        mean = ", mean=True" if self.mean else ""
        return named.get((self.p, self.mean), f"Norm(p={self.p!r}{mean})")


L1 = Norm(1)
L2 = Norm(2)
LINF = Norm(math.inf)
RMS = Norm(2, mean=True)


NormLike: TypeAlias = Norm | float | str
"""What is taken for a norm: 1, 2, any p > 0, ``"inf"`` or ``"rms"``."""


def as_norm(norm: NormLike) -> Norm:
    """Read a norm from a number or a word.

    >>> as_norm(2), as_norm("inf"), as_norm("rms"), as_norm("L1")
    (L2, LINF, RMS, L1)
    """
    if isinstance(norm, Norm):
        return norm
    if isinstance(norm, str):
        word = norm.strip().lower()
        if word == "rms":
            return RMS
        try:
            return Norm(float(word.removeprefix("l")))
        except ValueError:
            raise ValueError(f"unknown norm {norm!r}: write 1, 2, inf, any p > 0, or rms") from None
    if isinstance(norm, bool) or not isinstance(norm, (int, float)):
        raise TypeError(f"a norm is a number p > 0 or a Norm, not {type(norm).__name__}")
    return Norm(norm)
