"""Experiments on clipping that run in seconds to minutes on two cores; one file each, to be read top to bottom."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from gradclip.labs.lab import Arm, Curves, Lab

__all__ = ["LABS", "Arm", "Curves", "Lab", "load"]

LABS: dict[str, str] = {
    "charlm": "recurrent nets learn Python's own manual, character by character, with and without clipping",
    "lstm": "an LSTM adds up 50 numbers; the norm of every step before and after clipping",
    "cliff": "the loss surface of one recurrent unit: a wall that throws the weights far away, and the clipped step that stays",
    "temporal-order": "which of two symbols came first, long ago: how many runs solve it, by length, with and without clipping",
    "vanishing": "20 layers: the gradient dies on its way to the input; what mends that, and that clipping does not",
    "thresholds": "too low, right, too high: one model over a sweep of thresholds, and the rules that need none",
    "directions": "what clipping does to the direction: values bend it, the norm keeps it",
    "schedules": "five learning-rate schedules, and what each does to the gradient norms with and without clipping",
    "decay": "L2 in the loss against weight decay: the same under SGD, apart under Adam, and what clipping sees of either",
    "heavy-noise": "gradients with rare and enormous noise, where nothing but clipping lets SGD learn",
}
"""What each lab shows, by name; the module of that name in this package holds it as ``LAB``."""


def load(name: str) -> Lab:
    """Return a lab; only now is its framework imported.

    Raises:
        KeyError: there is no such lab.
    """
    if name not in LABS:
        raise KeyError(name)
    return cast(Lab, import_module(f"{__name__}.{name.replace('-', '_')}").LAB)
