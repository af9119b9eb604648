"""One measured number, and the one it was held against."""

from __future__ import annotations

from dataclasses import dataclass

from gradclip.diagnosis.formatting import number

__all__ = ["Evidence"]


@dataclass(frozen=True)
class Evidence:
    """One measured number, and the one it was held against."""

    what: str
    """What was measured, with its unit where it has one: ``gradient norm``."""
    value: float
    limit: float | None = None
    """The number that the value passed; None where none was needed."""
    step: int | None = None
    tensor: str = ""

    def __str__(self) -> str:
        """Return it in words.

        >>> print(Evidence("gradient norm", 81.0, 5.0, step=12, tensor="rnn.weight"))
        gradient norm 81 (limit 5) at step 12 in rnn.weight
        """
        limit = "" if self.limit is None else f" (limit {number(self.limit)})"
        at = "" if self.step is None else f" at step {self.step:,}"
        return f"{self.what} {number(self.value)}{limit}{at}{f' in {self.tensor}' if self.tensor else ''}"
