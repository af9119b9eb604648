"""Write a run in the formats of other tools: CSV, Parquet, TensorBoard.

The two last ones come with ``pip install "gradclip[export]"``: pyarrow, and TensorBoard's own record writer and message
types, which whoever looks at the result has anyway and which load neither TensorFlow nor torch.
"""

from __future__ import annotations

import csv
import io
import math
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gradclip._write import make_folder, replacing
from gradclip.errors import GradclipError
from gradclip.runs.columns import Steps
from gradclip.runs.reader import Run
from gradclip.runs.schema import ABSENT, EVENT_TYPES, FLAGS, KINDS, Event, to_json

__all__ = ["FORMATS", "ExportError", "export", "export_csv", "export_parquet", "export_tensorboard"]


EVENT_COLUMNS: Final = ("step", "step_of", *Event._fields)
MOST_NUMBERS: Final = 5_000_000
"""Of single tensors, in an event file."""


class ExportError(GradclipError):
    """A run could not be exported; the message is one sentence."""


def export(run: Run, folder: str | os.PathLike[str], format: str = "csv") -> list[Path]:
    """Write a run into a folder as ``csv``, ``parquet`` or ``tensorboard``; return the files, which are the user's alone.

    Raises:
        ExportError: the format is unknown, its library is not installed, or the folder cannot be written to.
    """
    if format not in FORMATS:
        raise ExportError(f"unknown export format {format!r}; write one of {', '.join(FORMATS)}")
    try:
        make_folder(Path(folder))
        return FORMATS[format](run, Path(folder))
    except OSError as error:
        raise ExportError(f"cannot export to {folder} ({error.strerror or error})") from error


def export_csv(run: Run, folder: Path) -> list[Path]:
    """Write ``steps.csv``, ``events.csv``, and for every optimizer and kind a file such as ``norm.0.csv``, a column a tensor.

    What is missing is empty; a NaN is ``nan``, an Inf is ``inf``. float32 norms have 9 digits, so they come back bit for bit.
    Text that a spreadsheet would take for a formula has a ``'`` before it.
    """
    steps = run.steps()
    files = [_write_csv(folder / "steps.csv", list(steps.columns()), _step_lines(steps))]
    if events := _event_rows(run):
        lines = ([_no_formula(cell) if isinstance(cell, str) else cell for cell in row] for row in events)
        files.append(_write_csv(folder / "events.csv", EVENT_COLUMNS, lines))
    for optimizer, kind in _tensor_tables(run):
        names = ["step", *(_no_formula(tensor.name) for tensor in run.tensors_of(optimizer))]
        files.append(_write_csv(folder / f"{kind}.{optimizer}.csv", names, _tensor_lines(run, kind, optimizer)))
    return files


def export_parquet(run: Run, folder: Path) -> list[Path]:
    """Write ``steps.parquet``, ``events.parquet``, and ``tensors.parquet`` in long form: step, optimizer, kind, tensor, value.

    What is missing is null (in the long form it is left out), a NaN is a NaN. The run's meta is in the schema's metadata, as
    JSON under ``gradclip``.
    """
    arrow = _needed("pyarrow")
    parquet = _needed("pyarrow.parquet")
    steps = run.steps()
    columns = {name: arrow.array(values, mask=steps.missing[name]) for name, values in steps.columns().items()}
    table = arrow.table(columns).replace_schema_metadata({"gradclip": to_json(run.meta)})
    with replacing(folder / "steps.parquet") as file:
        parquet.write_table(table, file)
    files = [folder / "steps.parquet", folder / "tensors.parquet"]
    if events := _event_rows(run):
        kinds = {str: arrow.string(), int: arrow.int64(), float: arrow.float64()}
        typed = zip(zip(*events, strict=True), (int, int, *EVENT_TYPES), strict=True)
        files.append(folder / "events.parquet")
        with replacing(files[-1]) as file:
            parquet.write_table(arrow.table([arrow.array(column, kinds[kind]) for column, kind in typed], EVENT_COLUMNS), file)
    word = arrow.dictionary(arrow.int32(), arrow.string())
    types = {"step": arrow.int64(), "optimizer": arrow.int64(), "kind": word, "tensor": word, "value": arrow.float32()}
    schema = arrow.schema(list(types.items()))
    with replacing(folder / "tensors.parquet") as file, parquet.ParquetWriter(file, schema) as writer:
        for columns in _long(run, arrow):
            writer.write_table(arrow.table(columns, schema=schema))
    return files


def export_tensorboard(run: Run, folder: Path, *, most: int = 1000) -> list[Path]:
    """Write an event file: every step's numbers, and every tensor's at up to ``most`` steps (TensorBoard draws 1,000).

    Of more than 5,000 tensors it is fewer steps, so that they fit into memory. Tags are ``step/loss``, ``norm/<tensor>``; with
    several optimizers ``step.1/loss``. Missing numbers are left out.
    """
    records = _needed("tensorboard.summary.writer.record_writer")
    events = _needed("tensorboard.compat.proto.event_pb2")
    summaries = _needed("tensorboard.compat.proto.summary_pb2")
    created = float(run.meta.get("created", 0.0))
    path = folder / f"events.out.tfevents.{int(created):010d}.{socket.gethostname()}.{run.path.stem}"
    with replacing(path) as file:
        writer = records.RecordWriter(file)
        writer.write(events.Event(wall_time=created, file_version="brain.Event:2").SerializeToString())
        for step, seconds, scalars in _scalars(run, most):
            values = [summaries.Summary.Value(tag=tag, simple_value=value) for tag, value in scalars]
            event = events.Event(wall_time=created + seconds, step=step, summary=summaries.Summary(value=values))
            writer.write(event.SerializeToString())
    return [path]


FORMATS: Final[Mapping[str, Callable[[Run, Path], list[Path]]]] = {
    "csv": export_csv,
    "parquet": export_parquet,
    "tensorboard": export_tensorboard,
}


def _needed(name: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        library = name.partition(".")[0]
        raise ExportError(f'this export needs {library}, which is not installed; pip install "gradclip[export]"') from error


def _tensor_tables(run: Run) -> Iterator[tuple[int, str]]:
    for optimizer in run.optimizers:
        for kind in run.kinds(optimizer):
            yield optimizer, kind


def _event_rows(run: Run) -> list[tuple[Any, ...]]:
    """The events in long form: the step that they led to, and whose step it was."""
    return [(step, optimizer, *event) for step, optimizer, events in run.events() for event in events]


def _write_csv(path: Path, names: Sequence[str], lines: Iterable[Sequence[Any]]) -> Path:
    with replacing(path) as file, io.TextIOWrapper(file, newline="", encoding="utf-8") as text:
        writer = csv.writer(text)
        writer.writerow(names)
        writer.writerows(lines)
    return path


def _no_formula(name: str) -> str:
    """Return text as a spreadsheet shows it and does not work it out.

    >>> _no_formula("=HYPERLINK(A1)"), _no_formula("encoder.weight")
    ("'=HYPERLINK(A1)", 'encoder.weight')
    """
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else name


def _step_lines(steps: Steps) -> Iterator[list[str]]:
    columns = []
    for name, values in steps.columns().items():
        numbers = values.astype(np.int64) if name in FLAGS else values
        columns.append(
            ["" if gone else repr(number) for number, gone in zip(numbers.tolist(), steps.missing[name], strict=True)]
        )
    return map(list, zip(*columns, strict=True))


def _tensor_lines(run: Run, kind: str, optimizer: int) -> Iterator[list[str]]:
    for steps, raw in run.tensor_chunks(kind, optimizer):
        for step, row in zip(steps.tolist(), raw.tolist(), strict=True):
            yield [str(step), *("" if number == ABSENT else f"{number:.9g}" for number in row)]


def _long(run: Run, arrow: Any) -> Iterator[dict[str, Any]]:
    """The tensor rows in long form, in portions."""
    kinds = arrow.array(list(KINDS))
    for optimizer, kind in _tensor_tables(run):
        names = arrow.array([tensor.name for tensor in run.tensors_of(optimizer)], arrow.string())
        for steps, raw in run.tensor_chunks(kind, optimizer, rows=2000):
            row, tensor = np.nonzero(raw != np.float32(ABSENT))
            code = np.full(len(row), list(KINDS).index(kind), np.int32)
            yield {
                "step": steps[row],
                "optimizer": np.full(len(row), optimizer, np.int64),
                "kind": arrow.DictionaryArray.from_arrays(code, kinds),
                "tensor": arrow.DictionaryArray.from_arrays(tensor.astype(np.int32), names),
                "value": raw[row, tensor],
            }


def _scalars(run: Run, most: int) -> Iterator[tuple[int, float, list[tuple[str, float]]]]:
    """Everything TensorBoard shows: step, seconds since the start, and tags with their values."""
    several = len(run.optimizers) > 1
    for optimizer in run.optimizers:
        suffix = f".{optimizer}" if several else ""
        steps = run.steps(optimizer)
        columns = {name: values for name, values in steps.columns().items() if name not in ("step", "optimizer", "time")}
        for index, (step, seconds) in enumerate(zip(steps.step.tolist(), np.nan_to_num(steps.time).tolist(), strict=True)):
            present = ((name, values) for name, values in columns.items() if not steps.missing[name][index])
            yield step, seconds, [(f"step{suffix}/{name}", float(values[index])) for name, values in present]
        names = [tensor.name for tensor in run.tensors_of(optimizer)]
        for kind in run.kinds(optimizer):
            rows = run.tensor_matrix(kind, optimizer, max_steps=max(1, min(most, MOST_NUMBERS // max(1, len(names)))))
            tags = [f"{kind}{suffix}/{name}" for name in names]
            yield from _rows_of_scalars(steps, rows.steps, rows.matrix, rows.missing, tags)


def _rows_of_scalars(
    steps: Steps, at: NDArray[np.int64], matrix: NDArray[np.float32], missing: NDArray[np.bool_], tags: list[str]
) -> Iterator[tuple[int, float, list[tuple[str, float]]]]:
    times = dict(zip(steps.step.tolist(), steps.time.tolist(), strict=True))
    for step, row, gone in zip(at.tolist(), matrix, missing, strict=True):
        seconds = times.get(step, 0.0)
        present = [(tags[i], float(row[i])) for i in np.flatnonzero(~gone).tolist()]
        yield step, 0.0 if math.isnan(seconds) else seconds, present
