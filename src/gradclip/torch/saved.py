"""What is saved of a method in use: its spelling, its counters and the threshold's arrays, as one flat dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
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
        StateError: the state is of another version, recipe or model, incomplete, or holds what no step can have left.
    """
    if not isinstance(state, Mapping):
        raise StateError(f"not a saved state: a dict is needed, not {type(state).__name__}")
    missing = [key for key in ("version", "recipe", *_COUNTERS) if key not in state]
    if missing:
        raise StateError(f"not a saved state: {listed(missing)} missing")
    if not _is_count(state["version"]) or state["version"] != _VERSION:
        raise StateError(f"the state has version {state['version']}, this gradclip reads version {_VERSION}")
    if not isinstance(state["recipe"], str) or state["recipe"] != recipe:
        raise StateError(f"the state belongs to {state['recipe']}, not to {recipe}: use that recipe")
    wrong = {key: state[key] for key in _COUNTERS if not _is_count(state[key])}
    if wrong:
        raise StateError(f"the state's counters are whole numbers of at least 0, not {wrong}: is it damaged?")
    history = {k.removeprefix(_HISTORY): v for k, v in state.items() if isinstance(k, str) and k.startswith(_HISTORY)}
    if not all(isinstance(value, Tensor) for value in history.values()):
        raise StateError("the state's arrays are not tensors: was it saved by another program?")
    shapes = {key: tuple(value.shape) for key, value in history.items()}
    expected = {key: tuple(value.shape) for key, value in start.items()}
    if history and shapes != expected:
        raise StateError(f"the state has the arrays {shapes}, but these parameters need {expected}: was the model changed?")
    for key, value in history.items():
        _check_array(key, value, start[key].dtype)
    step, skipped, in_a_row = (state[key] for key in _COUNTERS)
    return (step, skipped, in_a_row), {key: value.detach() for key, value in history.items()}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_array(name: str, array: Tensor, dtype: torch.dtype) -> None:
    """Refuse an array with which the next step would fail, or clip by a number that no history gives."""
    if array.dtype != dtype:
        raise StateError(f"the state's {name!r} is {array.dtype}, not {dtype}: keep a checkpoint's arrays as they were saved")
    if array.is_meta or array.layout != torch.strided:
        kind = "without values (on the meta device)" if array.is_meta else f"in the layout {array.layout}"
        raise StateError(f"the state's {name!r} is {kind}: load the checkpoint as plain tensors")
    found = array.isnan().any()
    if bool(found.full_tensor() if hasattr(found, "full_tensor") else found):  # on any rank
        raise StateError(f"the state's {name!r} holds a NaN, which no step leaves there: is it damaged?")
