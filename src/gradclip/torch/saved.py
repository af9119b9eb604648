"""What is saved of a method in use: its spelling, its counters and the threshold's arrays, as one flat dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gradclip.errors import StateError, listed
from gradclip.torch.step import State

__all__ = ["pack", "unpack"]

_VERSION = 1
_HISTORY = "threshold."
_COUNTERS = ("step", "skipped", "skipped_in_a_row")


def pack(recipe: str, counters: tuple[int, int, int], history: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the form in which a ``Clipper`` saves its state: any of those who keep one can take it up."""
    arrays = {_HISTORY + key: value for key, value in history.items()}
    return {"version": _VERSION, "recipe": recipe, **dict(zip(_COUNTERS, counters, strict=True)), **arrays}


def unpack(recipe: str, start: State, state: Mapping[str, Any]) -> tuple[tuple[int, int, int], dict[str, Tensor]]:
    """Return the counters and the threshold's arrays of a saved state.

    Args:
        recipe: the method's spelling.
        start: the threshold's state before the first step, for its names and shapes.
        state: what was saved.

    Raises:
        StateError: the state is of another version, recipe or model, or incomplete.
    """
    missing = [key for key in ("version", "recipe", *_COUNTERS) if key not in state]
    if missing:
        raise StateError(f"not a saved state: {listed(missing)} missing")
    if state["version"] != _VERSION:
        raise StateError(f"the state has version {state['version']}, this gradclip reads version {_VERSION}")
    if state["recipe"] != recipe:
        raise StateError(f"the state belongs to {state['recipe']}, not to {recipe}: use that recipe")
    history = {k.removeprefix(_HISTORY): v for k, v in state.items() if k.startswith(_HISTORY)}
    if not all(isinstance(value, Tensor) for value in history.values()):
        raise StateError("the state's arrays are not tensors: was it saved by another program?")
    shapes = {key: tuple(value.shape) for key, value in history.items()}
    expected = {key: tuple(value.shape) for key, value in start.items()}
    if history and shapes != expected:
        raise StateError(f"the state has the arrays {shapes}, but these parameters need {expected}: was the model changed?")
    step, skipped, in_a_row = (int(state[key]) for key in _COUNTERS)
    return (step, skipped, in_a_row), history
