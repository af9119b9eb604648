"""The nonfinite axis: what happens when a gradient holds a NaN or an Inf?

Non-finite means an element of a gradient is NaN or Inf; a large finite gradient is not.
Whatever the policy, a non-finite gradient never enters a threshold's history.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from gradclip.arguments import set_fields, whole

__all__ = ["Nonfinite", "NonfiniteLike", "Propagate", "Raise", "Skip", "Zero", "as_nonfinite"]


class Nonfinite:
    """What to do with a step that has a non-finite gradient."""

    word: ClassVar[str]
    """By which it is called."""
    patience: float = math.inf
    """How many such steps in a row are borne."""


@dataclass(frozen=True)
class Skip(Nonfinite):
    """Drop the step: every gradient becomes None, so weights and optimizer state stay as they were.

    The parameters are named in one warning; ``patience`` such steps in a row raise
    :class:`~gradclip.errors.NonFiniteGradientError` instead (counted where state is kept: ``Clipper``, ``attach``). On an
    accelerator ``attach`` lets a fused optimizer drop the step: gradients stay there then, and the host is told at the next.
    """

    word: ClassVar[str] = "skip"
    patience: int = 10

    def __post_init__(self) -> None:
        set_fields(self, patience=whole(self.patience, "patience"))


@dataclass(frozen=True)
class Raise(Nonfinite):
    """Raise :class:`~gradclip.errors.NonFiniteGradientError` naming the parameters; no gradient is changed."""

    word: ClassVar[str] = "raise"


@dataclass(frozen=True)
class Zero(Nonfinite):
    """Set the NaN and Inf elements to 0, then measure and clip what is left."""

    word: ClassVar[str] = "zero"


@dataclass(frozen=True)
class Propagate(Nonfinite):
    """Let the arithmetic run: a NaN norm makes its whole block NaN. Asks the host for nothing."""

    word: ClassVar[str] = "propagate"


_WORDS: dict[str, Nonfinite] = {policy.word: policy for policy in (Skip(), Raise(), Zero(), Propagate())}


NonfiniteLike: TypeAlias = Nonfinite | str
"""What is taken for a policy: one, or its word."""


def as_nonfinite(policy: NonfiniteLike) -> Nonfinite:
    """Read a policy from its word.

    >>> as_nonfinite("zero")
    Zero()
    """
    if isinstance(policy, Nonfinite):
        return policy
    if not isinstance(policy, str):
        raise TypeError(f"a nonfinite policy is one of {', '.join(_WORDS)}, not {type(policy).__name__}")
    try:
        return _WORDS[policy.strip().lower()]
    except KeyError:
        raise ValueError(f"unknown nonfinite policy {policy!r}: write {', '.join(_WORDS)}") from None
