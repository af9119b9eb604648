"""The executable specification: every method's formula in NumPy float64, which what is tested is compared with."""

from tests.reference.methods import Reference, at_step, clip, norm_of
from tests.reference.rules import formula, limits, stride

__all__ = ["Reference", "at_step", "clip", "formula", "limits", "norm_of", "stride"]
