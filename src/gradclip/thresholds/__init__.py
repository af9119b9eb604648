"""The threshold axis: how big may a block be?

A rule is two pure functions, ``init(norms) -> state`` and ``limits(norms, state, context) -> (limits, state)``, where ``norms``
has one entry a block and ``state`` is a flat dict of arrays. Some are given a number; the others learn from the run, and need
none tuned for each model. Each is the formula of its paper, written once for NumPy, PyTorch and JAX.

What holds for all that learn: the first step is defined; a block whose norm is 0 teaches nothing; a NaN or Inf never gets here
(the caller keeps the state as it was); memory is bounded; nothing is read by the host. Where a rule departs from its paper's
code, its docstring says so.
"""

from gradclip.thresholds.averages import Ema, EmaRatio, Growth, SecondMoment, ZScore
from gradclip.thresholds.given import Bounds, Constant, Relative, Schedule, ThresholdLike, Trust, as_threshold
from gradclip.thresholds.minimum import Minimum
from gradclip.thresholds.moments import Mean, Moments
from gradclip.thresholds.moving import Cosine, Linear, Warmup
from gradclip.thresholds.percentile import Percentile
from gradclip.thresholds.rule import Context, State, Threshold
from gradclip.thresholds.stride import Stride
from gradclip.thresholds.windows import Outlier, Quantile, Typical

__all__ = [
    "Context", "State", "Threshold", "ThresholdLike", "Warmup", "as_threshold",
    "Bounds", "Constant", "Cosine", "Linear", "Relative", "Schedule", "Trust",
    "Ema", "EmaRatio", "Growth", "Mean", "Minimum", "Moments", "Outlier", "Percentile", "Quantile", "SecondMoment", "Stride",
    "Typical", "ZScore",
]  # fmt: skip
