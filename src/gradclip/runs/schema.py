"""What a run file holds: its tables, its codes, and the rows that go in and come out (docs/run-file.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from gradclip.errors import GradclipError

__all__ = ["ABSENT", "ENDINGS", "KINDS", "NOT_PARAMETERS", "Event", "RunFileError", "StepRow", "TensorInfo"]

APPLICATION_ID: Final = 0x67726364
"""``grcd`` in ASCII: SQLite's application_id, by which ``file`` and the reader know a run."""
VERSION: Final = 2
"""SQLite's user_version: raised when an older reader could no longer read the file."""
PAGE_SIZE: Final = 16384
"""Rows of a few hundred tensors fill such pages to 99 %; with 4096 bytes an eighth would stay empty."""
SUFFIX: Final = ".gradclip"

KINDS: Final = {"norm": 1, "clipped_norm": 2, "weight_norm": 3, "update_norm": 4}
"""What a tensor row can hold, and its code in the file."""
ENDINGS: Final = ("finished", "crashed", "interrupted")
"""The statuses that the run itself writes when it is closed."""
ABSENT: Final = -1.0
"""In a tensor row: this tensor had no gradient. No norm is negative, and a NaN says that the gradient held one."""

REALS: Final = ("time", "loss", "lr", "norm", "clipped_norm", "coefficient", "threshold", "amp_scale", "weight_norm")
FLAGS: Final = ("clipped", "skipped")
COUNTS: Final = ("nonfinite",)

TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE kinds (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE tensors (
    optimizer INTEGER NOT NULL, id INTEGER NOT NULL,
    name TEXT NOT NULL, shape TEXT NOT NULL, numel INTEGER NOT NULL, param_group INTEGER NOT NULL,
    PRIMARY KEY (optimizer, id)
) WITHOUT ROWID;
CREATE TABLE steps (
    step INTEGER NOT NULL, optimizer INTEGER NOT NULL,
    time REAL, loss REAL, lr REAL, lrs TEXT, norm REAL, clipped_norm REAL, coefficient REAL, threshold REAL,
    clipped INTEGER, skipped INTEGER, nonfinite INTEGER, amp_scale REAL, weight_norm REAL,
    PRIMARY KEY (step, optimizer)
) WITHOUT ROWID;
CREATE TABLE tensor_rows (
    step INTEGER NOT NULL, optimizer INTEGER NOT NULL, kind INTEGER NOT NULL REFERENCES kinds (id),
    factor REAL, data BLOB
);
CREATE UNIQUE INDEX tensor_rows_by_step ON tensor_rows (step, optimizer, kind);
"""
EVENT_TABLES: Final = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY, pattern INTEGER NOT NULL, sequence INTEGER NOT NULL,
    kind TEXT NOT NULL, optimizer INTEGER, function TEXT NOT NULL, norm REAL,
    reached INTEGER, owned INTEGER, threshold REAL, place TEXT NOT NULL, detail TEXT NOT NULL
);
CREATE TABLE step_events (
    id INTEGER PRIMARY KEY, step INTEGER NOT NULL, optimizer INTEGER NOT NULL, pattern INTEGER NOT NULL
);
"""
TABLE_NAMES: Final = ("meta", "kinds", "tensors", "steps", "tensor_rows", "events", "step_events")


class RunFileError(GradclipError):
    """A run file cannot be read, or a new one cannot be made; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One parameter of one optimizer; its place in the list is its place in every tensor row.

    >>> TensorInfo("encoder.weight", (4, 3))
    TensorInfo(name='encoder.weight', shape=(4, 3), numel=12, optimizer=0, group=0)
    """

    name: str
    shape: tuple[int, ...]
    numel: int = -1
    """The number of elements; worked out from the shape unless it is given."""
    optimizer: int = 0
    group: int = 0

    def __post_init__(self) -> None:
        if self.numel < 0:
            count = 1
            for size in self.shape:
                count *= size
            object.__setattr__(self, "numel", count)


@dataclass(frozen=True, slots=True)
class StepRow:
    """One optimizer step, as numbers of the host; ``None`` where nothing was measured.

    A NaN is a value (the loss was NaN) and comes back as a NaN; ``None`` comes back as missing.
    """

    step: int
    optimizer: int = 0
    time: float | None = None
    """Seconds since the run began; the writer's own clock unless it is given."""
    loss: float | None = None
    lr: float | Sequence[float] | None = None
    """One learning rate, or one for each parameter group."""
    norm: float | None = None
    """The norm of all gradients together before clipping."""
    clipped_norm: float | None = None
    coefficient: float | None = None
    threshold: float | None = None
    clipped: bool | None = None
    skipped: bool | None = None
    nonfinite: int | None = None
    """How many tensors held a NaN or Inf."""
    amp_scale: float | None = None
    weight_norm: float | None = None
    """The norm of all weights together."""


NOT_PARAMETERS: Final = "no parameters, so they have no gradients"
"""The detail of a clipping that was given other tensors: gradients, or the values of a ``state_dict``."""


class Event(NamedTuple):
    """Something that happened before a step, in its order; a call that clips several optimizers is an event of each."""

    kind: str
    """``forward``, ``backward``, ``unscale``, ``clip``, ``stale``, ``step``, ``zero_grad``; ``unused``: gradients were reset
    that nothing has used; ``cut``: no more was kept."""
    optimizer: int | None = None
    """Whose step, gradients or tensors it is about; None where it is about none, or all."""
    function: str = ""
    """What clipped: a function's name, or a recipe."""
    norm: float | None = None
    """The order of the norm, where the function takes one."""
    reached: int | None = None
    """How many of the optimizer's tensors were clipped; without an optimizer, how many tensors that none owns."""
    owned: int | None = None
    """How many tensors the optimizer had."""
    threshold: float | None = None
    """The limit that the call was given, where it is one number of the host; the one in force is in ``StepRow``, too."""
    place: str = ""
    """Where in the script it was first called, ``train.py:31``."""
    detail: str = ""
    """More words, for who reads it."""
    sequence: int | None = None
    """Its place in the step, the same for all events of one call; None: its place among the events."""


EVENT_TYPES: Final = (str, int, str, float, int, int, float, str, str, int)
"""Of an event's fields, where they are not None."""


def to_real(value: float | None) -> float | str | None:
    """Return what stands for a number in a REAL column: SQLite would turn a NaN into NULL, so it is the text ``nan``.

    >>> to_real(None), to_real(0.5), to_real(float("inf")), to_real(float("nan"))
    (None, 0.5, inf, 'nan')
    """
    if value is None:
        return None
    number = float(value)
    return "nan" if math.isnan(number) else number


def to_json(value: Any) -> str:
    """Return JSON as Python writes it (NaN and Infinity are literals).

    A value that JSON does not know is written as its text, an entry whose key it does not know is left out.
    """
    return json.dumps(value, default=str, skipkeys=True, separators=(",", ":"))


def to_text(value: object) -> str:
    """Return text that any SQLite file can hold: a lone surrogate, which UTF-8 cannot, is written out."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")
