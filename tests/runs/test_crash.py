"""A run file is whole whatever becomes of the process that writes it, and tells what became of it."""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gradclip.runs import Run, RunWriter, StepRow
from gradclip.runs.process import STALE, status_of, surroundings
from tests.runs.support import run_program, running

FLUSHING = """
writer = RunWriter(sys.argv[1])
writer.add_tensors(tensors())
step = 0
while True:
    for step in range(step, step + random.randrange(1, 200)):
        add(writer, step)
    step += 1
    assert writer.flush()
    print(step, flush=True)
""".replace("random.", "__import__('random').")

ON_ITS_OWN = """
writer = RunWriter(sys.argv[1], interval=0.05)
writer.add_tensors(tensors())
step = 0
while True:
    add(writer, step)
    step += 1
    time.sleep(0.001)
"""


def kill_at_random(path, seed):
    """Start a program that records, kill it without warning, and return how many steps it knew to be written."""
    with running(FLUSHING, path) as process:
        process.stdout.readline()
        time.sleep(random.Random(seed).uniform(0, 0.15))
        process.kill()
        lines = process.stdout.read().split()
    return int(lines[-1]) if lines else 1


def consistent(run):
    """Check that a run's tables hold the same steps, without a gap; return how many.

    Only the last step may be there in part: a write can fall between the adding of its rows.
    """
    steps, rows, events = run.steps(), run.tensor_matrix("norm"), [step for step, *_ in run.events()]
    count = len(events)
    assert count <= len(rows.steps) <= len(steps) <= count + 1
    for written in (steps.step, steps.norm, rows.steps, rows.matrix[:, :1].ravel(), events):
        assert list(written) == list(range(len(written)))
    assert run._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return count


def test_killed_at_any_moment_a_run_holds_everything_that_was_flushed(tmp_path, reading):
    paths = [tmp_path / f"{number}.gradclip" for number in range(20)]
    with ThreadPoolExecutor(2) as pool:
        flushed = list(pool.map(kill_at_random, paths, range(20)))
    for path, least in zip(paths, flushed, strict=True):
        run = reading(path)
        assert consistent(run) >= least
        assert run.status == "killed"
        assert len(run.tensors) == 8


def test_a_run_is_read_while_it_is_written_and_flushes_without_being_asked(tmp_path):
    path = tmp_path / "run.gradclip"
    with running(ON_ITS_OWN, path):
        counts = []
        deadline = time.monotonic() + 30
        while len(counts) < 5 and time.monotonic() < deadline:
            if not path.exists() or not path.stat().st_size:
                continue
            with Run.open(path) as run:
                assert run.status == "running"
                with run.snapshot():
                    count = consistent(run)
                if count and count not in counts:
                    counts.append(count)
    assert len(counts) == 5
    assert counts == sorted(counts)


@pytest.mark.parametrize(
    ("ending", "code", "status", "exit_code"),
    [
        ("", 0, "finished", None),
        ("writer.close('finished', exit_code=0)", 0, "finished", 0),
        ("raise ValueError('a bug')", 1, "crashed", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT, "interrupted", 1),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, "killed", None),
        ("writer.flush(); os._exit(9)", 9, "killed", None),
    ],
)
def test_a_run_says_how_it_ended(tmp_path, reading, ending, code, status, exit_code):
    path = tmp_path / "run.gradclip"
    program = "writer = RunWriter(sys.argv[1]); writer.add_tensors(tensors()); add(writer, 0); writer.flush(); add(writer, 1)\n"
    run_program(program + ending, path, code=code)
    run = reading(path)
    assert (run.status, run.meta.get("exit_code")) == (status, exit_code)
    assert len(run.steps()) >= (1 if status == "killed" else 2)  # a killed one may have had the time to write more


def test_a_finished_run_is_one_file_that_a_read_only_reader_opens(tmp_path, reading):
    run_program(
        "writer = RunWriter(sys.argv[1]); writer.add_tensors(tensors()); add(writer, 0); writer.close()",
        tmp_path / "a.gradclip",
    )
    assert os.listdir(tmp_path) == ["a.gradclip"]
    before = (tmp_path / "a.gradclip").read_bytes()
    assert consistent(reading(tmp_path / "a.gradclip")) == 1
    assert os.listdir(tmp_path) == ["a.gradclip"]
    assert (tmp_path / "a.gradclip").read_bytes() == before


def test_a_reader_does_not_keep_a_run_from_ending(tmp_path, reading):
    writer = RunWriter(tmp_path / "run.gradclip")
    writer.add_step(StepRow(step=0))
    writer.flush()
    cursor = reading(writer.path)._connection.execute("SELECT * FROM kinds, meta")  # a read that goes on
    cursor.fetchone()
    writer.add_step(StepRow(step=1))
    writer.close()
    assert writer.failed is None
    run = reading(writer.path)
    assert (run.status, len(run.steps())) == ("finished", 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_writes_nothing_into_its_parent_s_file(tmp_path, reading):
    program = """
warnings.simplefilter("ignore", DeprecationWarning)  # fork beside a thread: what is tested here
writer = RunWriter(sys.argv[1], interval=0.01)
writer.add_tensors(tensors())
for step in range(200):
    add(writer, step)
    if step % 20 == 0:
        child = os.fork()
        if child == 0:
            for other in range(1000, 1100):
                add(writer, other)
            writer.update_meta(child=True)
            assert not writer.flush() and not writer.recording and writer.failed is None
            writer.close("crashed", exit_code=5)
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
writer.close()
print(writer.failed)
"""
    output, _ = run_program(program, tmp_path / "run.gradclip")
    run = reading(tmp_path / "run.gradclip")
    assert output == "None\n"
    assert consistent(run) == 200
    assert run.status == "finished"
    assert "child" not in run.meta


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_a_zombie_and_a_reused_process_number_do_not_pass_for_a_run_that_lives():
    here = {**surroundings(), "status": "running", "heartbeat": 1000.0}
    assert status_of(here, 1001.0) == "running"
    assert status_of({**here, "process_started": "1"}, 1001.0) == "killed"
    with running("print('here', flush=True); sys.stdin.read()", stdin=-1) as process:
        process.stdout.readline()
        other = {**here, "pid": process.pid, "process_started": process_started(process.pid)}
        assert status_of(other, 1001.0) == "running"
        assert status_of({**here, "pid": process.pid}, 1001.0) == "killed"  # alive, but it began at another time
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet collected
        assert status_of(other, 1001.0) == "killed"


def process_started(pid):
    return Path(f"/proc/{pid}/stat").read_text().split()[21]


def test_the_age_of_the_last_sign_of_life_decides_where_the_process_cannot_be_seen():
    here = {**surroundings(), "status": "running", "heartbeat": 1000.0}
    away = {**here, "host": "not-" + socket.gethostname()}
    assert status_of(away, 1000.0 + STALE - 1) == "running"
    assert status_of(away, 1000.0 + STALE + 1) == "killed"
    assert status_of(here, 1000.0 + STALE + 1) == "incomplete"
    assert status_of({**away, "status": "crashed"}, 1e12) == "crashed"


def test_an_idle_run_gives_signs_of_life(tmp_path, reading, monkeypatch):
    monkeypatch.setattr("gradclip.runs.writer.HEARTBEAT", 0.01)
    writer = RunWriter(tmp_path / "run.gradclip", interval=0.01)
    run = reading(writer.path)
    first = run.meta["heartbeat"]
    deadline = time.monotonic() + 30
    while run.meta["heartbeat"] == first and time.monotonic() < deadline:
        time.sleep(0.01)
    assert run.meta["heartbeat"] > first
    writer.close()
