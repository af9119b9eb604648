"""The executable specification: every method's formula in NumPy float64, which what is tested is compared with."""

from tests.reference.methods import Reference, at_step, clip, norm_of
from tests.reference.rules import limits

__all__ = ["Reference", "at_step", "clip", "limits", "norm_of"]
