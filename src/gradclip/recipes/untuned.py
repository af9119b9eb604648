"""One method to leave on everywhere."""

from __future__ import annotations

from gradclip.adaptive import Least, Stride, Typical
from gradclip.clipping import Clipping
from gradclip.nonfinite import Nonfinite, as_nonfinite
from gradclip.norms import L2
from gradclip.recipes.registry import Patterns, recipe
from gradclip.rescales import Hard
from gradclip.scopes import Global, patterns_of

__all__ = ["auto"]


@recipe("T = min(s · clip(median, 0.03 … 0.045 ‖W‖ / lr), 4 · median ‖g‖)", "this library; benchmarks/thresholds")
def auto(
    eta: float = 0.03,
    factor: float = 4.0,
    window: int = 100,
    *,
    exclude: Patterns = (),
    nonfinite: Nonfinite | str = "skip",
) -> Clipping:
    """Keep steps short beside the weights, and norms near their recent median; nothing to tune.

    Three things go wrong, and each has its own sign. A step that is too long for the weights shows at once in
    ``lr ||g|| / ||W||``: a limit from step 0, for optimizers whose step grows with the gradient (SGD). A run whose
    gradients are all longer than that takes steps of one length and never settles: they shorten, to 0.4 of it at last
    (``Stride``). A gradient that is out of line with those before it shows against their median, after ten steps, for every
    optimizer.

    Args:
        eta: the largest step as a share of the weights' norm; half as much again where that is what a typical gradient makes.
        factor: the largest norm as a multiple of the recent median.
        window: how many norms are remembered.
        exclude: name patterns of parameters to leave alone.
        nonfinite: ``"skip"``, ``"raise"``, ``"zero"`` or ``"propagate"``.

    >>> print(auto())
    auto:0.03
    """
    rule = Least(Stride(eta, window=window), Typical(factor, window))
    return Clipping(Global(patterns_of(exclude)), L2, rule, Hard(), as_nonfinite(nonfinite))
