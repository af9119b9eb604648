"""Run the checks on a run, and rank what they find."""

from __future__ import annotations

from collections.abc import Iterable
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
    return sorted(found, key=_rank)


def _rank(finding: Finding) -> tuple[int, ...]:
    symptom = finding.symptom
    places = (SEVERITIES.index(symptom.severity), CONFIDENCES.index(symptom.confidence), FAMILIES.index(finding.check.family))
    return (*places, finding.optimizer)
