"""Thresholds that learn from the run: the published rules that need no number tuned for each model.

Each is the formula of its paper on arrays of norms, one entry a block, written once for NumPy, PyTorch and JAX. What holds for
all: the first step is defined; a block whose norm is 0 teaches nothing; a NaN or Inf never gets here (the caller keeps the
state as it was); memory is bounded; nothing is read by the host. Where a rule departs from its paper's code, its docstring
says so.
"""

from gradclip.adaptive.averages import Ema, EmaRatio, Growth, SecondMoment, ZScore
from gradclip.adaptive.least import Least
from gradclip.adaptive.moments import Mean, Moments
from gradclip.adaptive.percentile import Percentile
from gradclip.adaptive.stride import Stride
from gradclip.adaptive.trust import Trust
from gradclip.adaptive.typical import Typical
from gradclip.adaptive.windows import Outlier, Quantile

__all__ = [
    "Ema", "EmaRatio", "Growth", "Least", "Mean", "Moments", "Outlier", "Percentile", "Quantile", "SecondMoment", "Stride",
    "Trust", "Typical", "ZScore",
]  # fmt: skip
