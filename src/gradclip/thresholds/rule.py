"""What every threshold rule is: two pure functions, ``init`` and ``limits``, and a few facts about them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from gradclip._arrays import Array

__all__ = ["Context", "State", "Threshold", "joined", "part_of"]

State: TypeAlias = Mapping[str, Array]
"""What a rule remembers: a flat dict of arrays."""


@dataclass(frozen=True)
class Context:
    """What a rule may know besides the norms: the step (from 0), and each block's weight norm and learning rate.

    The step is a Python number, or an array where a compiled loop counts it.
    """

    step: int | Array = 0
    weight_norms: Array | None = None
    lr: Array | None = None


class Threshold(ABC):
    """Say how big each block may be."""

    needs_weights: bool = False
    """The rule reads ``context.weight_norms``."""
    needs_lr: bool = False
    """The rule reads ``context.lr``, so it needs the optimizer."""
    stateful: bool = False
    """The rule keeps a history, so it needs a ``Clipper`` or ``attach``."""
    uniform: bool = False
    """One limit for every block, known before anything is measured."""
    fixed: float | None = None
    """The one limit of every block, where it is the same at every step."""
    couples: bool = False
    """The limit of a block depends on the norms of other blocks too, so it cannot be known from that block alone."""
    symmetric: bool = True
    """An element may be as large below 0 as above."""
    groups: int | None = None
    """How many groups it has a limit for; None for any number."""

    @property
    def blind(self) -> bool:
        """The limits do not depend on the norms, so they are known before anything is measured; a uniform one always is."""
        return self.uniform

    def init(self, norms: Array) -> State:
        """Return the state before the first step, on the device and in the library of ``norms``."""
        return {}

    @abstractmethod
    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        """Return the limit of each block (or one for all) and the next state. Never called with a NaN or Inf."""

    def bounds(self, norms: Array, state: State, context: Context) -> tuple[Array | float, Array | float, State]:
        """Return the lowest and highest value of each element, for blocks of one element."""
        limits, state = self.limits(norms, state, context)
        return -limits, limits, state


def joined(states: Sequence[State]) -> State:
    """Return the states of several rules as one, each array's name after its rule's place: ``0.mean``, ``1.mean``."""
    return {f"{place}.{key}": value for place, state in enumerate(states) for key, value in state.items()}


def part_of(state: State, place: int) -> State:
    """Return the state of the rule at this place, under its own names.

    >>> part_of({"0.mean": 1.0, "1.mean": 2.0}, 1)
    {'mean': 2.0}
    """
    return {key.removeprefix(f"{place}."): value for key, value in state.items() if key.startswith(f"{place}.")}
