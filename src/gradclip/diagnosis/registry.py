"""All checks, discovered by looking into the families' folders."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import Final

from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.manual import Manual
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData

__all__ = ["CHECKS", "FAMILIES", "Check"]

FAMILIES: Final = ("wiring", "explosion", "vanishing", "step_size", "threshold")
"""In this order findings of the same weight are listed: what is wired wrongly makes every other number doubtful."""

Detect = Callable[[RunData, OptimizerRun], Iterable[Symptom]]


@dataclass(frozen=True)
class Check:
    """A fault that can be detected in a run file."""

    name: str
    family: str
    detect: Detect = field(repr=False)
    """Yields what it finds in one optimizer's part of a run; reads, and changes nothing."""
    manual: Manual = field(repr=False)
    explains: tuple[str, ...] = ()
    """The findings that may be nothing but this one's effect: ``EXPLAINS`` in its file."""


def _discover() -> Mapping[str, Check]:
    checks = {}
    for family in FAMILIES:
        package = import_module(f"gradclip.diagnosis.findings.{family}")
        for module in pkgutil.iter_modules(package.__path__):
            found = import_module(f"{package.__name__}.{module.name}")
            name = module.name.replace("_", "-")
            manual = Manual.parse(name, found.__doc__ or "")
            checks[name] = Check(name, family, found.detect, manual, getattr(found, "EXPLAINS", ()))
    return MappingProxyType(checks)


CHECKS: Final = _discover()
"""Every check by its name, family by family."""
