"""Experiments on clipping that run in seconds to minutes on two cores; one file each, to be read top to bottom."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from gradclip.labs.lab import Arm, Curves, Lab

__all__ = ["LABS", "Arm", "Curves", "Lab", "load"]

LABS: dict[str, str] = {
    "charlm": "recurrent nets learn Python's own manual, character by character, with and without clipping",
    "lstm": "an LSTM adds up 50 numbers; the norm of every step before and after clipping",
}
"""What each lab shows, by name; the module of that name in this package holds it as ``LAB``."""


def load(name: str) -> Lab:
    """Return a lab; only now is its framework imported.

    Raises:
        KeyError: there is no such lab.
    """
    if name not in LABS:
        raise KeyError(name)
    return cast(Lab, import_module(f"{__name__}.{name}").LAB)
