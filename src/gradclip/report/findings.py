"""Findings as a reader meets them: the gravest as notices, the others in a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradclip.diagnosis.finding import Finding
from gradclip.diagnosis.ranking import LEADING
from gradclip.report.notice import Notice
from gradclip.report.table import Table

__all__ = ["findings_text", "leading", "others"]


def leading(findings: Sequence[Finding], several: bool = False) -> list[Notice]:
    """Lay out the gravest findings, at most ``LEADING``: who reads ten boxes reads none."""
    return [_notice_of(finding, several) for finding in findings[:LEADING]]


def others(findings: Sequence[Finding]) -> Table | None:
    """List the findings that do not lead; None where there are none."""
    rest = findings[LEADING:]
    rows = [(finding.name, finding.symptom.severity, finding.symptom.sentence) for finding in rest]
    return Table("Also found", ("finding", "weight", "what"), rows) if rows else None


def findings_text(findings: Sequence[Finding], several: bool = False) -> Iterator[Notice | Table]:
    """Tell the gravest findings at length, and the others in a table."""
    yield from leading(findings, several)
    rest = others(findings)
    if rest is not None:
        yield rest


def _notice_of(finding: Finding, several: bool = False) -> Notice:
    """Lay out a finding; where there are several optimizers, with its number."""
    symptom = finding.symptom
    parts = [symptom.severity, symptom.confidence, symptom.where, f"optimizer {finding.optimizer}" if several else ""]
    about = " · ".join(part for part in parts if part)
    facts = tuple(str(evidence) for evidence in symptom.evidence)
    return Notice(finding.name, symptom.severity, about, symptom.sentence, facts, symptom.fix)
