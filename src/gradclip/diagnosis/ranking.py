"""Run the checks on a run, and rank what they find."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import numpy as np

from gradclip.diagnosis.finding import Finding
from gradclip.diagnosis.readings.run_data import RunData
from gradclip.diagnosis.registry import CHECKS, FAMILIES, Check

__all__ = ["LEADING", "check"]

LEADING: Final = 3
"""A report leads with so many findings at most."""
SEVERITIES: Final = ("error", "warning", "note")
CONFIDENCES: Final = ("certain", "likely", "possible")


def check(run: RunData, checks: Iterable[Check] = tuple(CHECKS.values())) -> list[Finding]:
    """Return what is wrong with a run, the gravest first.

    Args:
        run: as ``gradclip.diagnosis.readings.run_data.gather`` reads it; a run that is still being written may be checked, too.
        checks: which; all by default.

    >>> import tempfile
    >>> from gradclip.diagnosis.readings.run_data import read_run
    >>> from gradclip.runs import Event, Run, RunWriter, StepRow, TensorInfo
    >>> folder = tempfile.TemporaryDirectory()
    >>> writer = RunWriter(f"{folder.name}/a.gradclip")
    >>> writer.add_tensors([TensorInfo("w", (2,))])
    >>> late = [Event(kind, 0) for kind in ("clip", "zero_grad", "forward", "backward", "step")]
    >>> for step in range(20):
    ...     writer.add_step(StepRow(step=step, norm=1.0))
    ...     writer.add_events(step, 0, late if step else late[1:])
    >>> writer.close()
    >>> with Run.open(writer.path) as run:
    ...     [finding.name for finding in check(read_run(run))]
    ['clip-after-step']
    >>> folder.cleanup()
    """
    with np.errstate(all="ignore"):
        found = [
            Finding(one, optimizer.number, symptom)
            for one in checks
            for optimizer in run.optimizers
            for symptom in one.detect(run, optimizer)
        ]
    return _causes_first(found)


def _causes_first(found: list[Finding]) -> list[Finding]:
    """Rank findings, a cause as what it explains; that stands behind it, and advises to mend the cause before anything else."""
    ranked = sorted(found, key=_rank)
    causes = {id(one): [cause for cause in ranked if _explains(cause, one)] for one in ranked}
    ranks = {id(one): min(_rank(other) for other in ranked if other is one or _explains(one, other)) for one in ranked}

    def place(one: Finding) -> tuple[tuple[int, ...], bool]:
        return max([(ranks[id(one)], False), *((ranks[id(cause)], True) for cause in causes[id(one)])])

    def advised(one: Finding) -> Finding:
        first = [cause for cause in causes[id(one)] if not causes[id(cause)]]
        return _effect(one, first[0]) if first else one

    return [advised(one) for one in sorted(ranked, key=place)]


def _explains(cause: Finding, finding: Finding) -> bool:
    """Whether a finding may be nothing but the effect of another one."""
    return finding.name in cause.check.explains and cause.optimizer == finding.optimizer


def _effect(finding: Finding, cause: Finding) -> Finding:
    fix = f"# mend {cause.name} first: this may be nothing but its effect"
    return replace(finding, symptom=replace(finding.symptom, fix=fix))


def _rank(finding: Finding) -> tuple[int, ...]:
    symptom = finding.symptom
    places = (SEVERITIES.index(symptom.severity), CONFIDENCES.index(symptom.confidence), FAMILIES.index(finding.check.family))
    return (*places, finding.optimizer)
