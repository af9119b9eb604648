"""What a reader must know before all else: a finding laid out apart from the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradclip.checks.checking import LEADING
from gradclip.checks.finding import Finding
from gradclip.report.table import Table

__all__ = ["Notice", "leading", "notice_of", "others"]


@dataclass(frozen=True)
class Notice:
    """A box of plain text on a page, a paragraph in a terminal."""

    title: str
    level: str
    """``error``, ``warning`` or ``note``."""
    about: str
    """What kind of thing it is, in a few words."""
    sentence: str
    facts: Sequence[str] = ()
    code: str = ""


def notice_of(finding: Finding, several: bool = False) -> Notice:
    """Lay out a finding; where there are several optimizers, with its number."""
    symptom = finding.symptom
    parts = [symptom.severity, symptom.confidence, symptom.where, f"optimizer {finding.optimizer}" if several else ""]
    about = " · ".join(part for part in parts if part)
    facts = tuple(str(evidence) for evidence in symptom.evidence)
    return Notice(finding.name, symptom.severity, about, symptom.sentence, facts, symptom.fix)


def leading(findings: Sequence[Finding], several: bool = False) -> list[Notice]:
    """Lay out the gravest findings, at most ``LEADING``: who reads ten boxes reads none."""
    return [notice_of(finding, several) for finding in findings[:LEADING]]


def others(findings: Sequence[Finding]) -> Table | None:
    """List the findings that do not lead; None where there are none."""
    rest = findings[LEADING:]
    rows = [(finding.name, finding.symptom.severity, finding.symptom.sentence) for finding in rest]
    return Table("Also found", ("finding", "weight", "what"), rows) if rows else None
