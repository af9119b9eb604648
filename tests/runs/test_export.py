"""What other tools read is what was recorded."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from gradclip.runs import ABSENT, Event, RunWriter, StepRow, TensorInfo
from gradclip.runs.export import ExportError, export, export_tensorboard

NAMES = ["w", 'a "quoted", name\nin two lines', "w"]


@pytest.fixture
def run(tmp_path, reading):
    writer = RunWriter(tmp_path / "run.gradclip", {"title": "for export", "created": 1000.0})
    writer.add_tensors([TensorInfo(name, (1,)) for name in NAMES])
    writer.add_tensors([TensorInfo("b", (1,), optimizer=1)])
    for step, loss in enumerate([0.1, math.nan, None, -math.inf]):
        writer.add_step(StepRow(step=step, time=float(step), loss=loss, clipped=step == 1, nonfinite=step))
        writer.add_tensor_row(step, 0, "norm", [step / 7, ABSENT, math.nan])
        writer.add_tensor_row(step, 0, "clipped_norm", 0.5)
    writer.add_step(StepRow(step=0, optimizer=1, time=0.5, loss=7.0))
    writer.add_tensor_row(0, 1, "update_norm", [1e-30])
    writer.close()
    return reading(writer.path)


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_csv(run, tmp_path):
    files = export(run, tmp_path / "out" / "csv")
    assert [file.name for file in files] == ["steps.csv", "norm.0.csv", "clipped_norm.0.csv", "update_norm.1.csv"]
    head, *lines = rows_of(files[0])
    steps = [dict(zip(head, line, strict=True)) for line in lines]
    assert [row["loss"] for row in steps] == ["0.1", "7.0", "nan", "", "-inf"]
    assert [row["clipped"] for row in steps] == ["0", "", "1", "0", "0"]
    assert [row["optimizer"] for row in steps] == ["0", "1", "0", "0", "0"]
    assert {row["norm"] for row in steps} == {""}
    head, *lines = rows_of(files[1])
    assert head == ["step", *NAMES]
    assert [line[0] for line in lines] == ["0", "1", "2", "3"]
    assert [np.float32(line[1]) for line in lines] == run.tensor_matrix("norm").matrix[:, 0].tolist()
    assert {(line[2], line[3]) for line in lines} == {("", "nan")}
    assert rows_of(files[3]) == [["step", "b"], ["0", f"{np.float32(1e-30):.9g}"]]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_of_a_csv_is_a_formula(tmp_path, reading, start):
    """Text cells, that is: a negative number stays a number."""
    writer = RunWriter(tmp_path / "run.gradclip")
    writer.add_tensors([TensorInfo(f'{start}HYPERLINK("http://a.b","c")', (1,)), TensorInfo(f"w{start}1", (1,))])
    writer.add_step(StepRow(step=0, loss=-1.5))
    writer.add_tensor_row(0, 0, "norm", [1.0, 2.0])
    writer.close()
    steps, norms = map(rows_of, export(reading(writer.path), tmp_path / "out"))
    assert norms[0] == ["step", f'\'{start}HYPERLINK("http://a.b","c")', f"w{start}1"]
    assert dict(zip(*steps, strict=True))["loss"] == "-1.5"


def test_parquet(run, tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    steps_file, tensors_file = export(run, tmp_path / "out", "parquet")
    steps = parquet.read_table(steps_file)
    loss = steps["loss"].to_pylist()
    assert loss[:2] == [0.1, 7.0]
    assert math.isnan(loss[2])
    assert loss[3:] == [None, -math.inf]
    assert steps["clipped"].to_pylist() == [False, None, True, False, False]
    assert steps["nonfinite"].to_pylist() == [0, None, 1, 2, 3]
    assert json.loads(steps.schema.metadata[b"gradclip"])["title"] == "for export"
    rows = parquet.read_table(tensors_file).to_pylist()
    assert len(rows) == 4 * 2 * 2 + 1
    assert rows[-1] == {"step": 0, "optimizer": 1, "kind": "update_norm", "tensor": "b", "value": float(np.float32(1e-30))}
    clipped = [row["value"] for row in rows if row["kind"] == "clipped_norm" and not math.isnan(row["value"])]
    assert clipped == run.tensor_matrix("clipped_norm").matrix[:, 0].tolist()
    assert NAMES[1] not in {row["tensor"] for row in rows}  # it never had a gradient


EVENTS = [Event("backward", place="a, b.py:3"), Event("clip", 1, "clip_grad_norm_", 2.0, 1, 1, math.inf), Event("step", 1)]


@pytest.fixture
def eventful(tmp_path, reading):
    writer = RunWriter(tmp_path / "eventful.gradclip")
    for step in range(2):
        writer.add_events(step, 1, EVENTS)
    writer.close()
    return reading(writer.path)


def test_events_as_csv(eventful, tmp_path):
    head, *lines = rows_of(export(eventful, tmp_path / "out")[1])
    assert (tmp_path / "out" / "events.csv").exists()
    rows = [dict(zip(head, line, strict=True)) for line in lines]
    assert [(row["step"], row["step_of"], row["sequence"]) for row in rows] == [(s, "1", e) for s in "01" for e in "012"]
    assert [row["place"] for row in rows] == ["a, b.py:3", "", ""] * 2
    clip = {"kind": "clip", "optimizer": "1", "function": "clip_grad_norm_", "norm": "2.0", "reached": "1", "owned": "1"}
    assert clip.items() <= rows[1].items()
    assert [row["threshold"] for row in rows] == ["", "inf", ""] * 2


def test_events_as_parquet(eventful, tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    rows = parquet.read_table(export(eventful, tmp_path / "out", "parquet")[2]).to_pylist()
    expected = [event._replace(sequence=i)._asdict() for i, event in enumerate(EVENTS)]
    assert rows == [{"step": step, "step_of": 1, **event} for step in range(2) for event in expected]


@pytest.mark.filterwarnings("default")  # of the reading side, which is TensorBoard's
def test_tensorboard(run, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = export(run, tmp_path / "out", "tensorboard")
    read = EventAccumulator(str(file.parent))
    read.Reload()
    loss = read.Scalars("step.0/loss")
    assert [(point.step, point.wall_time) for point in loss] == [(0, 1000.0), (1, 1001.0), (3, 1003.0)]
    assert loss[0].value == np.float32(0.1)
    assert math.isnan(loss[1].value)
    assert loss[2].value == -math.inf
    assert [point.value for point in read.Scalars("step.1/loss")] == [7.0]
    assert [point.value for point in read.Scalars("update_norm.1/b")] == [np.float32(1e-30)]
    assert f"norm.0/{NAMES[1]}" not in read.Tags()["scalars"]
    (tmp_path / "few").mkdir()
    export_tensorboard(run, tmp_path / "few", most=2)
    few = EventAccumulator(str(tmp_path / "few"))
    few.Reload()
    assert len(few.Scalars("norm.0/w")) == 2 * NAMES.count("w")
    assert len(few.Scalars("step.0/loss")) == 3


@pytest.mark.parametrize(("format", "library"), [("parquet", "pyarrow"), ("tensorboard", "tensorboard")])
def test_a_library_that_is_not_installed_is_named(run, tmp_path, monkeypatch, format, library):
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ExportError) as caught:
        export(run, tmp_path / "out", format)
    assert str(caught.value) == f'this export needs {library}, which is not installed; pip install "gradclip[export]"'


def test_other_mistakes(run, tmp_path):
    with pytest.raises(ExportError, match="unknown export format 'xls'; write one of csv, parquet, tensorboard"):
        export(run, tmp_path, "xls")
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=r"cannot export to .* \(Not a directory\)"):
        export(run, tmp_path / "file" / "out")


def test_no_export_loads_a_framework(run, tmp_path):
    pytest.importorskip("tensorboard")
    program = """
import sys
from gradclip.runs import Run
from gradclip.runs.export import export
with Run.open(sys.argv[1]) as run:
    export(run, sys.argv[2], "tensorboard")
print(sorted({"torch", "tensorflow"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", program, str(run.path), str(tmp_path / "out")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"
