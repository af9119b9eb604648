"""What was written is what is read."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradclip.runs import ABSENT, KINDS, Event, Run, RunWriter, StepRow, TensorInfo
from gradclip.runs.schema import FLAGS, REALS

numbers = st.none() | st.floats(width=64)
rows = st.builds(
    StepRow,
    step=st.integers(0, 2**40),
    optimizer=st.integers(0, 2),
    **{name: numbers for name in REALS if name != "time"},
    time=st.floats(0, 1e9),
    **dict.fromkeys(FLAGS, st.none() | st.booleans()),
    nonfinite=st.none() | st.integers(0, 10**6),
)


@contextlib.contextmanager
def written(fill, *, tensors=()):
    """Record into a file of its own and open it; Hypothesis runs a test many times in one tmp_path."""
    with tempfile.TemporaryDirectory() as folder:
        writer = RunWriter(Path(folder) / "run.gradclip")
        writer.add_tensors(tensors)
        fill(writer)
        writer.close()
        assert writer.failed is None
        with Run.open(writer.path) as run:
            yield run


def same(read, given):
    """Equal bits, except that SQLite keeps no minus before a zero and all NaNs are one."""
    return math.isnan(read) if math.isnan(given) else read == given


@settings(max_examples=25)
@given(st.lists(rows, max_size=8, unique_by=lambda row: (row.step, row.optimizer)))
def test_every_float_and_every_gap_in_a_step_comes_back(given_rows):
    with written(lambda writer: [writer.add_step(row) for row in given_rows]) as run:
        steps = run.steps()
        expected = sorted(given_rows, key=lambda row: (row.step, row.optimizer))
        assert steps.step.tolist() == [row.step for row in expected]
        assert steps.optimizer.tolist() == [row.optimizer for row in expected]
        for name, column in steps.columns().items():
            for value, gone, row in zip(column.tolist(), steps.missing[name], expected, strict=True):
                original = getattr(row, name)
                assert gone == (original is None)
                assert gone or same(value, original)


def test_none_nan_and_both_infinities_are_four_different_things(tmp_path, reading):
    writer = RunWriter(tmp_path / "run.gradclip")
    for step, loss in enumerate([None, math.nan, math.inf, -math.inf, 5e-324, 0.1]):
        writer.add_step(StepRow(step=step, loss=loss))
    writer.close()
    steps = reading(writer.path).steps()
    np.testing.assert_array_equal(steps.loss, [np.nan, np.nan, np.inf, -np.inf, 5e-324, 0.1])
    assert steps.missing["loss"].tolist() == [True, False, False, False, False, False]
    assert steps.missing["norm"].all()


@settings(max_examples=25)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.just(3)), elements=st.floats(0, width=32) | st.just(math.nan)),
    st.data(),
)
def test_tensor_rows_come_back_bit_for_bit_and_absence_is_not_nan(matrix, data):
    absent = data.draw(hnp.arrays(bool, matrix.shape))
    sent = np.where(absent, np.float32(ABSENT), matrix)

    def fill(writer):
        for kind in KINDS:
            for step, row in enumerate(sent):
                writer.add_tensor_row(step, 0, kind, row)

    with written(fill, tensors=[TensorInfo(name, ()) for name in "abc"]) as run:
        assert run.kinds() == tuple(KINDS)
        for kind in KINDS:
            rows = run.tensor_matrix(kind)
            np.testing.assert_array_equal(rows.missing, absent)
            np.testing.assert_array_equal(rows.matrix, np.where(absent, np.float32(np.nan), matrix))
            assert rows.matrix.dtype == np.float32


def test_a_finite_norm_beyond_float32_stays_finite(tmp_path, reading):
    writer = RunWriter(tmp_path / "run.gradclip")
    writer.add_tensors([TensorInfo(name, ()) for name in "abc"])
    writer.add_tensor_row(0, 0, "norm", [1e300, math.inf, 1e-300])
    writer.close()
    assert reading(writer.path).tensor_matrix("norm").matrix.tolist() == [[float(np.finfo(np.float32).max), math.inf, 0.0]]


def test_a_row_given_as_a_number_is_the_norm_row_times_it(tmp_path, reading):
    writer = RunWriter(tmp_path / "run.gradclip")
    writer.add_tensors([TensorInfo(name, ()) for name in "abcd"])
    for step, factor in enumerate([0.25, 1.0]):
        writer.add_tensor_row(step, 0, "norm", [4.0, ABSENT, math.nan, math.inf])
        writer.add_tensor_row(step, 0, "clipped_norm", factor)
    writer.close()
    rows = reading(writer.path).tensor_matrix("clipped_norm")
    np.testing.assert_array_equal(rows.matrix, [[1.0, np.nan, np.nan, np.inf], [4.0, np.nan, np.nan, np.inf]])
    assert rows.missing.tolist() == [[False, True, False, False]] * 2


def test_tensors_that_come_later_were_absent_before(tmp_path, reading):
    writer = RunWriter(tmp_path / "run.gradclip")
    writer.add_tensors([TensorInfo("a", (2, 3), group=1)])
    writer.add_tensor_row(0, 0, "norm", [1.0])
    writer.flush()
    writer.add_tensors([TensorInfo("b", ()), TensorInfo("x", (7,), optimizer=1)])
    writer.add_tensor_row(1, 0, "norm", [1.0, 2.0])
    writer.add_tensor_row(1, 1, "norm", [3.0])
    writer.close()
    run = reading(writer.path)
    assert run.tensors == (TensorInfo("a", (2, 3), 6, 0, 1), TensorInfo("b", (), 1), TensorInfo("x", (7,), 7, 1, 0))
    assert run.optimizers == (0, 1)
    rows = run.tensor_matrix("norm", 0)
    np.testing.assert_array_equal(rows.matrix, [[1.0, np.nan], [1.0, 2.0]])
    assert rows.missing.tolist() == [[False, True], [False, False]]
    assert run.tensor_matrix("norm", 1).matrix.tolist() == [[3.0]]
    assert run.tensor_matrix("norm", 0, after=0).steps.tolist() == [1]


def test_names_come_back_as_they_are(tmp_path, reading):
    names = ["</script><b>", "=1+1", "a\x00b", "größe", "'; DROP TABLE steps; --", "", "a\nb"]
    writer = RunWriter(tmp_path / "a ? #&%20.gradclip", {"title": names})
    writer.add_tensors([TensorInfo(name, ()) for name in [*names, "lone \udc80"]])
    writer.close()
    run = reading(writer.path)
    assert [tensor.name for tensor in run.tensors] == [*names, "lone \\udc80"]
    assert run.meta["title"] == names


def numbered(events):
    return tuple(event._replace(sequence=i) for i, event in enumerate(events))


EVENTS = [
    Event("forward"),
    Event("backward", place="train.py:30"),
    Event("unscale", 1),
    Event("clip", 0, "clip_grad_norm_", 2.0, 3, 4, 1.0, "train.py:31", sequence=3),
    Event("clip", 1, "clip_grad_norm_", 2.0, 5, 5, 1.0, "train.py:31", sequence=3),
    Event("clip", 2, "clip_grad_norm_", math.inf, None, 5, math.inf, "größe \x00.py:31", "a 'word'"),
    Event("clip", None, "global_norm:1.0", None, 0, 0, 1e-300),
    Event("stale", 12),
    Event("step", 12, detail="dropped by the GradScaler"),
    Event("zero_grad"),
    Event("zero_grad", 0),
    Event("cut"),
]


def test_every_kind_of_event_comes_back(tmp_path, reading):
    writer = RunWriter(tmp_path / "run.gradclip")
    writer.add_events(7, 12, EVENTS)
    writer.add_events(8, 12, [Event("clip", 0, "lone \udc80", threshold=math.nan)])
    writer.close()
    (one, other) = reading(writer.path).events()
    assert one == (7, 12, tuple(e if e.sequence is not None else e._replace(sequence=i) for i, e in enumerate(EVENTS)))
    assert [type(cell) for cell in one[2][3]] == [str, int, str, float, int, int, float, str, str, int]
    assert (other[2][0].function, math.isnan(other[2][0].threshold)) == ("lone \\udc80", True)


def test_events_keep_their_order_and_equal_sequences_are_stored_once(tmp_path, reading):
    usual = [Event("zero_grad"), Event("forward"), Event("backward"), Event("clip", 0, "global_norm:1.0"), Event("step", 0)]
    odd = [Event("step", 0), Event("clip", 0, 'a "late" one')]
    writer = RunWriter(tmp_path / "run.gradclip")
    for step in range(100):
        writer.add_events(step, 0, odd if step == 50 else usual)
    writer.add_events(99, 3, [Event("cut")])
    writer.close()
    run = reading(writer.path)
    events = run.events()
    assert [(step, optimizer) for step, optimizer, _ in events] == [*((step, 0) for step in range(100)), (99, 3)]
    assert all(happened == numbered(usual) for step, _, happened in events[:100] if step != 50)
    assert events[50] == (50, 0, numbered(odd))
    assert events[100] == (99, 3, numbered([Event("cut")]))
    assert run._connection.execute("SELECT count(DISTINCT pattern), count(*) FROM events").fetchone() == (3, 8)
    assert run.events(after=98) == events[99:]


def test_learning_rates_of_all_groups(tmp_path, reading):
    writer = RunWriter(tmp_path / "run.gradclip")
    for step, lr in enumerate([0.1, [0.1, 0.2], None, np.array([0.3, math.nan, 0.5]), [math.inf]]):
        writer.add_step(StepRow(step=step, lr=lr))
    writer.close()
    run = reading(writer.path)
    np.testing.assert_array_equal(run.steps().lr, [0.1, 0.1, np.nan, 0.3, np.inf])
    steps, rates = run.learning_rates()
    assert steps.tolist() == [0, 1, 3, 4]
    expected = [[0.1, np.nan, np.nan], [0.1, 0.2, np.nan], [0.3, np.nan, 0.5], [np.inf, np.nan, np.nan]]
    np.testing.assert_array_equal(rates, expected)


def test_meta_is_noted_at_the_moment_it_is_given(tmp_path, reading):
    writer = RunWriter(tmp_path / "run.gradclip", {"clip": "global_norm:1.0", "limit": math.inf})
    layers = [1]
    writer.update_meta(layers=layers, device=Path("cuda"))
    layers.append(2)
    writer.close("crashed", exit_code=3)
    meta = reading(writer.path).meta
    assert meta["clip"] == "global_norm:1.0"
    assert meta["limit"] == math.inf
    assert meta["layers"] == [1]
    assert meta["device"] == "cuda"
    assert meta["status"] == "crashed"
    assert meta["exit_code"] == 3
    assert meta["command"]
    assert {"created", "cwd", "python", "numpy", "schema", "pid", "host", "heartbeat", "ended"} <= set(meta)


def test_a_step_that_is_added_twice_counts_once(tmp_path, reading):
    writer = RunWriter(tmp_path / "run.gradclip")
    writer.add_tensors([TensorInfo("a", ())])
    for loss in (1.0, 2.0):
        writer.add_step(StepRow(step=7, loss=loss))
        writer.add_tensor_row(7, 0, "norm", [loss])
    writer.close()
    run = reading(writer.path)
    assert run.steps().loss.tolist() == [2.0]
    assert run.tensor_matrix("norm").matrix.tolist() == [[2.0]]


def test_rows_of_an_empty_run_are_empty(tmp_path, reading):
    writer = RunWriter(tmp_path / "run.gradclip")
    writer.close()
    run = reading(writer.path)
    assert (len(run.steps()), run.events(), run.tensors, run.optimizers, run.kinds()) == (0, [], (), (), ())
    assert run.tensor_matrix("norm").matrix.shape == (0, 0)


@pytest.mark.parametrize("most", [1, 3, 10, 99, 100, 5000])
def test_a_thinned_matrix_has_the_largest_of_every_bucket(tmp_path, reading, most):
    rng = np.random.default_rng(0)
    matrix = rng.random((100, 4), dtype=np.float32)
    matrix[40, 2], matrix[41, 2], matrix[50, 1] = np.nan, np.inf, np.inf
    writer = RunWriter(tmp_path / "run.gradclip")
    writer.add_tensors([TensorInfo(name, ()) for name in "abcd"])
    for step, row in enumerate(matrix):
        writer.add_tensor_row(10 * step, 0, "norm", row)
    writer.close()
    rows = reading(writer.path).tensor_matrix("norm", max_steps=most)
    size = math.ceil(100 / most)
    expected = np.stack([matrix[start : start + size].max(axis=0) for start in range(0, 100, size)])
    assert len(rows.matrix) <= most
    np.testing.assert_array_equal(rows.matrix, expected)
    assert rows.steps.tolist() == list(range(0, 1000, 10 * size))


def test_wrong_words_are_named(tmp_path, reading):
    writer = RunWriter(tmp_path / "run.gradclip")
    with pytest.raises(ValueError, match=r"unknown kind of tensor row 'norms'; write one of norm, clipped_norm"):
        writer.add_tensor_row(0, 0, "norms", [1.0])
    with pytest.raises(ValueError, match="unknown ending 'done'; write one of finished, crashed, interrupted"):
        writer.close("done")
    writer.close()
    with pytest.raises(ValueError, match="unknown kind"):
        reading(writer.path).tensor_matrix("norms")


def test_importing_it_loads_no_framework():
    program = (
        "import sys, gradclip.runs; print(sorted({'torch', 'jax', 'plotly', 'pyarrow', 'tensorboard'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
