"""What is wrong with a run: one finding a file, each with its rule and its manual page.

A check reads what a run file says (:mod:`gradclip.analysis`) and yields a :class:`Symptom` for what it finds. Its file's name
is its name, its folder its family, its docstring its manual page; a new file is all that a new check needs.

>>> from gradclip.checks import CHECKS
>>> CHECKS["clip-after-step"].family
'wiring'
"""

from __future__ import annotations

from gradclip.analysis.evidence import Evidence
from gradclip.checks.checking import check
from gradclip.checks.finding import Finding, Symptom
from gradclip.checks.manual import Manual
from gradclip.checks.registry import CHECKS, FAMILIES, Check

__all__ = ["CHECKS", "FAMILIES", "Check", "Evidence", "Finding", "Manual", "Symptom", "check"]
