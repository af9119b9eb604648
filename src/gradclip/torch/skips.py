"""Count skipped steps: the first one warns, too many in a row raise."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gradclip.errors import NonFiniteGradientError, listed
from gradclip.nonfinite import Nonfinite
from gradclip.torch.late import LateSkip

__all__ = ["DROPPED_GRADIENT", "SKIPPED_STEP", "Skips", "Words"]


@dataclass(frozen=True)
class Words:
    """How skipped steps are spoken of."""

    first: str
    """The warning; ``{names}`` stands for the parameters with a NaN or Inf."""
    too_many: str
    """What the error says after their names; ``{count}`` stands for the steps in a row."""

    def warning(self, names: Sequence[str]) -> str:
        """Return the warning."""
        return self.first.format(names=listed(names))


SKIPPED_STEP: Final = Words(
    "gradclip skipped a step: non-finite gradient in {names}. All gradients are None, so the "
    "optimizer leaves weights and state as they are; nonfinite='raise' stops here instead.",
    ": {count} steps in a row were skipped; look for the first NaN, or lower the learning rate",
)
DROPPED_GRADIENT: Final = Words(
    "gradclip dropped the non-finite gradient of {names}: it is None, and its parameter was not stepped; "
    "nonfinite='raise' stops here instead.",
    " in {count} steps in a row; look for the first NaN, or lower the learning rate",
)


class Skips:
    """Skipped steps: how many, and how many in a row; the first one warns, too many in a row raise.

    Args:
        policy: what happens to a NaN or Inf; where it is ``Skip``, its ``patience`` ends here.
        words: of the warning and the error.
    """

    def __init__(self, policy: Nonfinite, words: Words) -> None:
        self.total = 0
        """All of them."""
        self.in_a_row = 0
        """Those since the last step that was not skipped."""
        self._policy, self._words = policy, words
        self.unsettled = False
        """Whether :meth:`settle` or :meth:`raise_overdue` has anything to do."""
        self._late: LateSkip | None = None
        self._overdue: tuple[str, ...] = ()

    def count(self, names: Sequence[str]) -> None:
        """Count a skipped step; ``names`` are the parameters with a NaN or Inf.

        Raises:
            NonFiniteGradientError: ``patience`` such steps in a row.
        """
        self._count(names)
        self._lose_patience(names)

    def count_later(self, late: LateSkip) -> None:
        """Count a step when the host learns whether it was skipped, in :meth:`settle`."""
        self._late, self.unsettled = late, True

    def forgive(self) -> None:
        """A step was not skipped."""
        self.in_a_row = 0

    def settle(self) -> None:
        """Take in what the last step was; what there is to raise waits for :meth:`raise_overdue`."""
        late, self._late = self._late, None
        if late is None:
            return
        if not late.read():
            self.forgive()
            return
        names = late.names()
        self._count(names)
        if self._out_of_patience:
            self._overdue = names

    def raise_overdue(self) -> None:
        """Raise what :meth:`settle` has left.

        Raises:
            NonFiniteGradientError: ``patience`` skipped steps in a row.
        """
        overdue, self._overdue = self._overdue, ()
        self.unsettled = False
        if overdue:
            self._lose_patience(overdue)

    def load(self, total: int, in_a_row: int) -> None:
        """Take up where a saved state left off."""
        self.total, self.in_a_row = total, in_a_row
        self._late, self._overdue = None, ()

    def _count(self, names: Sequence[str]) -> None:
        self.total += 1
        self.in_a_row += 1
        if self.total == 1 and not self._out_of_patience:
            warnings.warn(self._words.warning(names), RuntimeWarning, stacklevel=3)

    @property
    def _out_of_patience(self) -> bool:
        return self.in_a_row >= self._policy.patience

    def _lose_patience(self, names: Sequence[str]) -> None:
        if self._out_of_patience:
            raise NonFiniteGradientError(names, after=self._words.too_many.format(count=self.in_a_row))
