"""What a check says: the fault in a sentence, what was measured, where, and the fix as code."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.formatting import number

if TYPE_CHECKING:
    from gradclip.diagnosis.registry import Check

__all__ = ["Confidence", "Evidence", "Finding", "Severity", "Symptom"]

Severity = Literal["error", "warning", "note"]
"""``error``: the run is lost, or does not do what its code says. ``warning``: it suffers, very likely. ``note``: know it."""

Confidence = Literal["certain", "likely", "possible"]
"""``certain`` follows from the order of calls or from a NaN; the others from numbers that a healthy run rarely shows."""


@dataclass(frozen=True)
class Symptom:
    """What a check has found in one optimizer's part of a run."""

    severity: Severity
    sentence: str
    """The fault in one plain sentence with its most telling number; names the fault, not the remedy."""
    evidence: tuple[Evidence, ...]
    fix: str
    """Code or a command that mends it, ready to be copied."""
    confidence: Confidence = "likely"
    where: str = ""
    """The place in the script, ``train.py:31``, where it is known."""


@dataclass(frozen=True)
class Finding:
    """A symptom, and the check that found it."""

    check: Check
    optimizer: int
    symptom: Symptom

    @property
    def name(self) -> str:
        """The fault's name, ``clip-after-step``."""
        return self.check.name

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON knows it; what is no finite number becomes its name."""
        symptom = self.symptom
        return {
            "name": self.name,
            "family": self.check.family,
            "optimizer": self.optimizer,
            "severity": symptom.severity,
            "confidence": symptom.confidence,
            "sentence": symptom.sentence,
            "where": symptom.where,
            "evidence": [_evidence(evidence) for evidence in symptom.evidence],
            "fix": symptom.fix,
        }


def _evidence(evidence: Evidence) -> dict[str, Any]:
    numbers = {"value": evidence.value, "limit": evidence.limit}
    finite = {name: value if value is None or math.isfinite(value) else number(value) for name, value in numbers.items()}
    return {"what": evidence.what, **finite, "step": evidence.step, "tensor": evidence.tensor}
