"""The run file: what a training run was, in one SQLite file that survives a crash.

`RunWriter` writes it, `Run` reads it; nothing here knows a framework. The tables are described in docs/run-file.md.
"""

from gradclip.runs.columns import Steps, TensorRows
from gradclip.runs.compare_ranks import Disagreement, RankReport
from gradclip.runs.listing import RunSummary, list_runs
from gradclip.runs.paths import new_run_path
from gradclip.runs.reader import Run
from gradclip.runs.schema import ABSENT, ENDINGS, KINDS, NOT_PARAMETERS, Event, RunFileError, StepRow, TensorInfo
from gradclip.runs.thin import thin, thin_matrix
from gradclip.runs.writer import RunWriter

__all__ = [
    "ABSENT",
    "ENDINGS",
    "KINDS",
    "Disagreement",
    "NOT_PARAMETERS",
    "Event",
    "RankReport",
    "Run",
    "RunFileError",
    "RunSummary",
    "RunWriter",
    "StepRow",
    "Steps",
    "TensorInfo",
    "TensorRows",
    "list_runs",
    "new_run_path",
    "thin",
    "thin_matrix",
]
