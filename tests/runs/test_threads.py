"""The writer under several threads, signals and a system that gives it no thread."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gradclip.runs import RunWriter, StepRow, TensorInfo
from gradclip.runs.schema import to_json


def test_rows_of_many_threads_all_arrive(tmp_path, reading):
    writer = RunWriter(tmp_path / "run.gradclip", interval=0.001)

    def add(thread):
        for step in range(500):
            writer.add_step(StepRow(step=step, optimizer=thread))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    writer.close()
    run = reading(writer.path)
    assert run.optimizers == (0, 1, 2, 3)
    assert all(run.steps(thread).step.tolist() == list(range(500)) for thread in range(4))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals on this system")
def test_a_signal_s_handler_may_record_while_a_row_is_being_added(tmp_path, reading):
    writer = RunWriter(tmp_path / "run.gradclip", interval=0.01)
    handled = []

    def handle(*_):
        handled.append(len(handled))
        writer.add_step(StepRow(step=len(handled), optimizer=1))

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for step in range(20_000):
            writer.add_step(StepRow(step=step))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    writer.close()
    run = reading(writer.path)
    assert len(run.steps(0)) == 20_000
    assert len(run.steps(1)) == len(handled) > 0


def test_no_thread_to_be_had(tmp_path, reading, monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    told = []
    writer = RunWriter(tmp_path / "run.gradclip", on_failure=told.append)
    writer.add_step(StepRow(step=0))
    writer.close()
    assert told == [f"recording stopped, training goes on: cannot write {writer.path} (can't start new thread)"]
    assert reading(writer.path).status == "incomplete"


def test_what_is_added_after_the_end_is_not_recorded(tmp_path, reading):
    writer = RunWriter(tmp_path / "run.gradclip")
    writer.close()
    writer.add_step(StepRow(step=0))
    writer.update_meta(late=True)
    assert not writer.flush()
    writer.close("crashed")
    run = reading(writer.path)
    assert (run.status, len(run.steps()), "late" in run.meta) == ("finished", 0, False)


def test_a_snapshot_and_every_single_call_see_one_moment(tmp_path, reading, monkeypatch):
    writer = RunWriter(tmp_path / "run.gradclip")
    writer.add_tensors([TensorInfo("a", ())])
    writer.add_tensor_row(0, 0, "norm", [1.0])
    writer.flush()
    run = reading(writer.path)
    look_up = run.tensors_of

    def look_up_while_it_grows(optimizer):
        found = look_up(optimizer)
        writer.add_tensors([TensorInfo("later", ())])
        assert writer.flush()
        return found

    with run.snapshot():
        look_up_while_it_grows(0)
        assert len(run.tensors) == 1
    assert len(run.tensors) == 2
    monkeypatch.setattr(run, "tensors_of", look_up_while_it_grows)
    assert run.tensor_matrix("norm").matrix.shape == (1, 2)
    writer.close()


def test_meta_of_any_kind_can_be_noted():
    assert (
        to_json(
            {
                "a": {
                    1,
                },
                ("b", "c"): 1,
                "d": [float("inf")],
                2: None,
            }
        )
        == '{"a":"{1}","d":[Infinity],"2":null}'
    )
