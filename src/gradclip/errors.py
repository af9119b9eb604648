"""Every error this library raises on its own behalf.

    GradclipError
    ├── RecipeError              (ValueError)    a spelling that names no recipe, or a bad argument in it
    ├── TargetError              (ValueError)    what was passed to clip cannot be clipped
    ├── StateError               (ValueError)    a saved state that belongs to something else
    └── NonFiniteGradientError   (RuntimeError)  a NaN or Inf, under the policy that raises

Arguments of the wrong type or out of range raise plain ``TypeError`` and ``ValueError``.
All of them are raised before any gradient is changed.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["GradclipError", "NonFiniteGradientError", "RecipeError", "StateError", "TargetError"]


class GradclipError(Exception):
    """Base of the library's own errors."""


class RecipeError(GradclipError, ValueError):
    """A recipe's spelling could not be understood."""


class TargetError(GradclipError, ValueError):
    """The parameters or gradients that were passed cannot be clipped."""


class StateError(GradclipError, ValueError):
    """A saved state belongs to another recipe, shape or version; nothing was loaded."""


class NonFiniteGradientError(GradclipError, RuntimeError):
    """A gradient holds a NaN or an Inf; ``names`` lists the parameters."""

    def __init__(self, names: Sequence[str], *, after: str = "") -> None:
        self.names = tuple(names)
        super().__init__(f"non-finite gradient in {listed(self.names)}{after}")


def listed(names: Sequence[str], most: int = 5) -> str:
    """Join names for a message, the first few written out.

    >>> listed(["a", "b"]), listed(list("abcdefg"), most=2)
    ("'a', 'b'", "'a', 'b' and 5 more")
    """
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
