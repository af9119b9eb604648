"""Methods that are two points of the algebra in turn."""

from __future__ import annotations

from gradclip.adaptive import Mean, Moments
from gradclip.chain import Chain
from gradclip.clipping import Clipping
from gradclip.nonfinite import Nonfinite, as_nonfinite
from gradclip.norms import L2, LINF
from gradclip.recipes.registry import Patterns, recipe
from gradclip.rescales import Clamp, Normalize
from gradclip.scopes import PerTensor, patterns_of

__all__ = ["stable_spam"]


@recipe("clamp to mean max |gₜ|, then gₜ · (mean ‖gₜ‖ / rms ‖gₜ‖) / ‖gₜ‖", "Stable-SPAM 2025, arXiv 2502.17055")
def stable_spam(
    beta: float = 0.999,
    beta1: float = 0.7,
    beta2: float = 0.9,
    *,
    exclude: Patterns = (),
    nonfinite: Nonfinite | str = "skip",
) -> Chain:
    """Clamp each tensor's spikes to its mean largest element, then bring it to a norm near 1; for Adam, not for SGD.

    The scale of the gradient is lost: every tensor comes out with a norm near 1, whatever it was. Adam divides by the
    gradient's own size and does not mind; under SGD it is wrong, as every tensor then moves by about lr at each step.
    Departures from the published code: what exceeds the limit is clamped to it; there it is multiplied by limit / max |g|,
    which leaves an element just above the limit smaller than one just below. The other departures are those of
    ``Mean`` and ``Moments``; the momentum resets of the paper's optimizer are no part of clipping.

    Args:
        beta: the memory of the mean largest element, in (0, 1).
        beta1: the memory of the mean norm, in (0, 1).
        beta2: the memory of the mean square norm, in (0, 1).
        exclude: name patterns of parameters to leave alone.
        nonfinite: ``"skip"``, ``"raise"``, ``"zero"`` or ``"propagate"``.

    >>> print(stable_spam())
    stable_spam:0.999
    """
    scope, policy = PerTensor(patterns_of(exclude)), as_nonfinite(nonfinite)
    return Chain(
        Clipping(scope, LINF, Mean(beta), Clamp(), policy),
        Clipping(scope, L2, Moments(beta1, beta2), Normalize(), policy),
    )
