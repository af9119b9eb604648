"""What is beyond float64 or a gradient's dtype: norms and factors by fractions and powers of two, in several multiplications.

It is slow, for it measures again and copies, and runs only where the quick way has found a norm that is not finite though all
elements are, a factor below what float64 holds to full precision, or one that would bring an element beyond its dtype's range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from gradclip.backends import Backend, rescaled
from gradclip.rescales import Rescale

__all__ = [
    "SMALLEST", "Wide", "below_end", "ends_of_ranges", "exact_factors", "exact_norms", "in_range", "parts", "smallest_range",
    "value_of",
]  # fmt: skip

SMALLEST = 2.0**-960
"""Below this a norm or a factor counts as too small for float64, whose precision ends at 2^-1022."""
_SHIFT = 512
_FAR = 1020
"""A ratio of so many powers of two is far from the limit: there a factor follows the ratio, or has stopped."""
_MOST_POWERS = 4000
_MARGIN = 1e-6
"""How far below the end of its range, as a share, an element is kept, so that no rounding of a factor brings it beyond."""


class Wide(NamedTuple):
    """Numbers ``fraction * 2^power``."""

    fraction: Tensor
    power: Tensor


def value_of(wide: Wide) -> Tensor:
    """Return the numbers in float64: 0 or inf where it cannot hold them."""
    found = wide.fraction
    for part in list(parts(wide))[1:]:
        found = found * part
    return found


def exact_norms(norms: Tensor, backend: Backend, measure: Callable[[Backend], Tensor]) -> Wide:
    """Return norms that are known in float64, measured again on scaled copies where they are too large or too small for it.

    Args:
        norms: as float64 has them.
        backend: the gradients.
        measure: measures the same of another backend.
    """
    fraction, power = _split(norms)
    for beyond, shift in ((norms.isinf(), -_SHIFT), (norms < SMALLEST, _SHIFT)):
        if bool(beyond.any()):
            again, shifted = _split(measure(rescaled(backend, 2.0**shift)))
            fraction, power = torch.where(beyond, again, fraction), torch.where(beyond, shifted - shift, power)
    return Wide(fraction, power)


def exact_factors(rescale: Rescale, norms: Wide, limits: Tensor | float, step: int) -> Wide:
    """Return the factor of each block, whatever its ratio to the limit."""
    bounds = torch.as_tensor(limits, dtype=norms.fraction.dtype, device=norms.fraction.device).expand(norms.fraction.shape)
    bound, at = _split(bounds)
    apart = norms.power - at
    near = apart.clamp(-_FAR, _FAR)

    def factors(near: Tensor) -> Tensor:
        return rescale.factors(norms.fraction, torch.where(bounds.isinf(), bounds, bound * _power_of_two(-near)), step)

    found = factors(near)
    follows = torch.isclose(found, 2 * factors(near + 1), rtol=1e-3, atol=0) & (found > 0)
    return Wide(found, torch.where(follows, near - apart, 0))


def in_range(factors: Wide, below_end: Tensor) -> Wide:
    """Return the factors, the greater of them limited so that they bring no element beyond its dtype's range; none below 1.

    Args:
        factors: of the blocks.
        below_end: how many powers of two the largest element of each block is below the end of its dtype's range.
    """
    room = (below_end - _MARGIN).clamp(min=0)
    over = torch.log2(factors.fraction) + factors.power > room
    beyond = (room - _FAR).clamp(min=0).ceil()
    return Wide(torch.where(over, torch.exp2(room - beyond), factors.fraction), torch.where(over, beyond.long(), factors.power))


def below_end(largest: Tensor, ends: Tensor) -> Tensor:
    """Return how many powers of two the largest elements are below the ends of their ranges; very many for 0."""
    return (ends - torch.log2(largest)).clamp(0, _MOST_POWERS)


def ends_of_ranges(backend: Backend) -> Tensor:
    """Return the power of two at which each tensor's dtype ends; for one that only another rank has, the least of all."""
    ends = [None if t is None else math.log2(torch.finfo(t.dtype).max) for t in backend.tensors]
    least = min((end for end in ends if end is not None), default=0.0)
    return torch.tensor([least if end is None else end for end in ends], dtype=torch.float64, device=backend.device)


def parts(factors: Wide) -> Iterator[Tensor]:
    """Yield factors that float64 holds, whose product these are; all but the first are powers of two."""
    yield factors.fraction
    left = factors.power.clamp(-_MOST_POWERS, _MOST_POWERS)
    while bool(left.any()):
        step = left.clamp(-1000, 1000)
        yield _power_of_two(step)
        left = left - step


def smallest_range(backend: Backend) -> float:
    """Return the largest number that every gradient can hold, less what a factor may be rounded by."""
    ends = (torch.finfo(dtype).max for dtype in {t.dtype for t in backend.tensors if t is not None})
    return min(ends, default=math.inf) * (1 - _MARGIN)


def _split(numbers: Tensor) -> tuple[Tensor, Tensor]:
    fraction, power = torch.frexp(numbers)
    return fraction, power.long()


def _power_of_two(power: Tensor) -> Tensor:
    """Exactly, of powers that float64 holds to full precision."""
    return ((power + 1023) << 52).view(torch.float64)
