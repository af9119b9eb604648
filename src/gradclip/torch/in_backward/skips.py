"""Count the steps in which a gradient was dropped."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from gradclip.errors import NonFiniteGradientError, listed
from gradclip.nonfinite import Nonfinite, Skip

__all__ = ["Skips"]


class Skips:
    """Steps with a dropped gradient: how many, and how many in a row; the first one warns, too many in a row raise."""

    def __init__(self) -> None:
        self.total = 0
        """All of them."""
        self.in_a_row = 0
        """Those since the last step without one."""
        self._counted = False

    def count(self, names: Sequence[str], policy: Nonfinite) -> None:
        """Count a dropped gradient; further ones of the same step are not counted again.

        Raises:
            NonFiniteGradientError: ``patience`` such steps in a row.
        """
        if self._counted:
            return
        self._counted = True
        self.total += 1
        self.in_a_row += 1
        if isinstance(policy, Skip) and self.in_a_row >= policy.patience:
            after = f" in {self.in_a_row} steps in a row; look for the first NaN, or lower the learning rate"
            raise NonFiniteGradientError(names, after=after)
        if self.total == 1:
            warnings.warn(
                f"gradclip dropped the non-finite gradient of {listed(names)}: it is None, and its parameter was not stepped; "
                "nonfinite='raise' stops here instead.",
                RuntimeWarning,
                stacklevel=2,
            )

    def end_step(self) -> None:
        """Begin a new step."""
        if not self._counted:
            self.in_a_row = 0
        self._counted = False
