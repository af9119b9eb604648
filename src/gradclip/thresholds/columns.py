"""What the rules do entry by entry, or down the columns of a history with one column a block.

``xp`` is the library that the arrays are of. New arrays lie on the device of the norms; an array that ``jax.jit`` traces
cannot say which one that is, and need not.
"""

from __future__ import annotations

from typing import Any

from gradclip._arrays import Array, namespace
from gradclip.thresholds.rule import State

__all__ = ["interpolated", "row_numbers", "rows_of", "where_active", "zeros"]


def zeros(norms: Array, *names: str) -> State:
    """Return a state that begins with 0 for every block."""
    return dict.fromkeys(names, namespace(norms).zeros_like(norms))


def where_active(xp: Any, active: Array, following: State, state: State) -> dict[str, Array]:
    """Return the next state of the blocks that had a gradient, and the old one of the others."""
    return {key: xp.where(active, value, state[key]) for key, value in following.items()}


def rows_of(norms: Array, rows: int) -> Array:
    """Return so many rows, each the same."""
    return namespace(norms).broadcast_to(norms[None, :], (rows, norms.shape[0]))


def row_numbers(xp: Any, history: Array) -> Array:
    """Return the numbers of the rows, from 0, as a column."""
    return xp.arange(history.shape[0], dtype=history.dtype, device=getattr(history, "device", None))[:, None]


def interpolated(xp: Any, below: Array, above: Array, rank: Array) -> Array:
    """Return the value at a rank between two neighbours, inf where the upper one is."""
    zero = xp.zeros_like(rank)
    low, high = xp.where(below < xp.inf, below, zero), xp.where(above < xp.inf, above, zero)
    return xp.where(above < xp.inf, low + (high - low) * (rank - xp.floor(rank)), xp.inf)
