"""Training never stops because recording cannot; it is told once, in one sentence."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import pytest

from gradclip.runs import RunFileError, RunWriter, StepRow, TensorInfo, new_run_path
from gradclip.runs import writer as writer_module
from tests.runs.support import PREFIX, recorded, run_program, train_on


def test_a_full_disk_is_told_once_and_what_was_written_stays(tmp_path, reading):
    # A limit on the file's size is what a real disk does: the system refuses to write on.
    program = """
import resource
told = []
writer = RunWriter(sys.argv[1], interval=0.01, on_failure=told.append)
writer.add_tensors(tensors())
for step in range(100):
    add(writer, step)
assert writer.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, resource.RLIM_INFINITY))
for step in range(100, 20_000):
    add(writer, step)
    if step % 1000 == 0:
        writer.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.close()
assert told == [writer.failed] and not writer.recording, (told, writer.failed)
print(writer.failed)
"""
    path = tmp_path / "run.gradclip"
    output, _ = run_program(program, path)
    assert output.startswith(f"{PREFIX}cannot write {path} (d")  # "disk I/O error" or "database or disk is full"
    run = reading(path)
    steps = run.steps().step.tolist()
    assert steps == list(range(len(steps)))
    assert 100 <= len(steps) < 20_000
    assert steps[:-1] <= run.tensor_matrix("norm").steps.tolist() <= steps  # the last step may be there in part


def test_sqlite_s_own_word_for_a_full_disk(tmp_path, reading, monkeypatch):
    told = []
    writer = RunWriter(tmp_path / "run.gradclip", on_failure=told.append)
    writer.add_step(StepRow(step=0))
    assert writer.flush()

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(writer._store, "_write_steps", full)
    assert not train_on(writer)
    assert told == [writer.failed] == [f"{PREFIX}cannot write {writer.path} (database or disk is full)"]
    run = reading(writer.path)
    assert (run.status, run.meta["failure"]) == ("incomplete", writer.failed)
    assert len(run.steps()) == 1


@pytest.mark.parametrize("place", ["below a file", "deleted working directory", "a folder", "no folder"])
def test_a_place_that_cannot_be_written_to(tmp_path, place):
    (tmp_path / "file").write_text("")
    paths = {"below a file": "file/run.gradclip", "a folder": ".", "no folder": "no/run.gradclip"}
    if place == "deleted working directory":
        program = """
os.mkdir(sys.argv[1]); os.chdir(sys.argv[1]); os.rmdir(sys.argv[1])
for writer in (RunWriter("run.gradclip"), RunWriter.create("runs")):
    add(writer, 0)
    writer.close()
    assert writer.failed
"""
        assert run_program(program, tmp_path / "gone")[1].count(PREFIX) == 2
        return
    told = []
    writer = RunWriter(tmp_path / paths[place], on_failure=told.append)
    assert not train_on(writer)
    assert told == [f"{PREFIX}cannot write {tmp_path / paths[place]} (unable to open database file)"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFileError, match=r"cannot make a run file in .*runs \(Not a directory\); name a folder"):
        new_run_path(tmp_path / "file" / "runs")
    told = []
    train_on(RunWriter.create(tmp_path / "file" / "runs", on_failure=told.append))
    assert told == [
        f"{PREFIX}cannot make a run file in {tmp_path}/file/runs (Not a directory); name a folder that can be written to"
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are another thing there")
def test_a_read_only_folder():
    """Root may write anywhere, so root's program goes on as another user."""
    program = """
if os.geteuid() == 0:
    os.seteuid(65534)
writer = RunWriter.create(sys.argv[1])
add(writer, 0)
writer.close()
for path in sys.argv[2:]:  # and a finished run can be read there
    with Run.open(path) as run:
        print(run.status, len(run.steps()), len(os.listdir(sys.argv[1])))
"""
    with tempfile.TemporaryDirectory() as name:  # not in pytest's own folder, which other users cannot enter
        folder = Path(name)
        done = recorded(folder / "done.gradclip")
        logged = recorded(folder / "logged.gradclip")
        connection = sqlite3.connect(logged)
        connection.execute("PRAGMA journal_mode = WAL")  # as it stays when somebody reads while the run ends
        connection.close()
        for path in (done, logged):
            path.chmod(0o644)  # a run is its owner's alone unless the owner lets others read it
        folder.chmod(0o555)
        output, errors = run_program(program, folder, done, logged)
        folder.chmod(0o755)
    assert output == "finished 3 2\n" * 2
    assert errors.count(f"{PREFIX}cannot make a run file in {folder} (Permission denied)") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be deleted there")
@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_deleted_under_the_writer(tmp_path, replaced):
    told = []
    folder = tmp_path / "runs"
    writer = RunWriter(new_run_path(folder, "x"), on_failure=told.append)
    writer.add_step(StepRow(step=0))
    assert writer.flush()
    shutil.rmtree(folder)
    if replaced:
        folder.mkdir()
        writer.path.write_text("mine")
    assert not train_on(writer)
    assert told == [f"{PREFIX}cannot write {writer.path} (the file was moved or deleted)"]
    assert not replaced or writer.path.read_text() == "mine"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the system does not say where it was moved")
def test_a_file_that_was_moved_holds_what_was_written_until_then(tmp_path, reading):
    told = []
    writer = RunWriter(tmp_path / "run.gradclip", on_failure=told.append)
    writer.add_tensors([TensorInfo("w", (2,))])
    for step in range(250):
        writer.add_step(StepRow(step=step))
        writer.add_tensor_row(step, 0, "norm", [1.0])
    assert writer.flush()
    assert writer.steps_written == 250
    moved = tmp_path / "elsewhere" / "moved.gradclip"
    moved.parent.mkdir()
    (tmp_path / "run.gradclip").rename(moved)  # without its log
    assert not train_on(writer)
    assert told == [f"{PREFIX}cannot write {tmp_path}/run.gradclip (the file was moved to {moved})"]
    assert (writer.steps_written, writer.path) == (250, moved)
    run = reading(moved)
    assert run.steps().step.tolist() == list(range(250))
    assert len(run.tensor_matrix("norm").steps) == 250


def test_steps_are_counted_as_they_are_written(tmp_path):
    writer = RunWriter(tmp_path / "run.gradclip", interval=1e9)
    writer.add_step(StepRow(step=0))
    assert writer.steps_written == 0
    writer.flush()
    assert writer.steps_written == 1
    train_on(writer, steps=3)
    assert writer.steps_written == 4
    gone = RunWriter(tmp_path / "gone.gradclip", on_failure=lambda _: None)
    train_on(gone)
    assert gone.steps_written == 3
    again = RunWriter(gone.path, on_failure=lambda _: None)
    train_on(again)
    assert again.steps_written == 0


def test_a_file_that_stays_locked(tmp_path, reading):
    told = []
    writer = RunWriter(tmp_path / "run.gradclip", lock_timeout=0.05, on_failure=told.append)
    other = sqlite3.connect(writer.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert not train_on(writer)
    other.execute("ROLLBACK")
    other.close()
    assert told == [f"{PREFIX}cannot write {writer.path} (database is locked)"]
    assert len(reading(writer.path).steps()) == 0


def test_a_lock_that_passes_costs_nothing(tmp_path, reading):
    writer = RunWriter(tmp_path / "run.gradclip")
    other = sqlite3.connect(writer.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.2, other.execute, ["ROLLBACK"])
    release.start()
    assert train_on(writer)
    release.join()
    other.close()
    assert len(reading(writer.path).steps()) == 3


class StuckDisk:
    """A disk that takes a batch when it is let go."""

    def __init__(self, writer, monkeypatch, *, fails=False):
        self.writing, self.go_on, self.fails = threading.Event(), threading.Event(), fails
        self.write = writer._store.write
        monkeypatch.setattr(writer._store, "write", self.wait_and_write)
        writer.add_step(StepRow(step=0))
        assert self.writing.wait(30)

    def wait_and_write(self, batch):
        self.writing.set()
        assert self.go_on.wait(30)
        if self.fails:
            raise sqlite3.OperationalError("disk I/O error")
        self.write(batch)


def test_adding_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    writer = RunWriter(tmp_path / "run.gradclip", interval=0.001)
    disk = StuckDisk(writer, monkeypatch)
    writer.add_step(StepRow(step=1))  # would wait forever if it needed the disk
    assert not writer.flush(timeout=0.01)
    disk.go_on.set()
    assert writer.flush()
    writer.close()


def test_what_was_added_while_the_disk_was_busy_is_written_at_the_end(tmp_path, reading, monkeypatch):
    writer = RunWriter(tmp_path / "run.gradclip", interval=0.001)
    disk = StuckDisk(writer, monkeypatch)
    writer.add_step(StepRow(step=1))
    threading.Timer(0.1, disk.go_on.set).start()
    writer.close()
    assert reading(writer.path).steps().step.tolist() == [0, 1]


def test_two_causes_are_one_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "MOST_WAITING", 10_000)
    told = []
    writer = RunWriter(tmp_path / "run.gradclip", interval=0.001, on_failure=told.append)
    disk = StuckDisk(writer, monkeypatch, fails=True)
    for step in range(100):
        writer.add_step(StepRow(step=step))
    disk.go_on.set()
    writer.close()
    assert told == [f"{PREFIX}cannot write {writer.path} (the disk is too slow for what is recorded)"]


def test_a_disk_that_never_answers_does_not_keep_the_program_from_ending(tmp_path, monkeypatch):
    told = []
    writer = RunWriter(tmp_path / "run.gradclip", interval=0.001, on_failure=told.append)
    disk = StuckDisk(writer, monkeypatch)
    monkeypatch.setattr(writer, "_patience", 0.01)
    writer.close()
    assert told == [f"{PREFIX}cannot write {writer.path} (the disk did not answer in time)"]
    disk.go_on.set()
    writer.close()


def test_what_waits_for_a_slow_disk_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "MOST_WAITING", 10_000)
    told = []
    writer = RunWriter(tmp_path / "run.gradclip", interval=1000, on_failure=told.append)
    for step in range(100):
        writer.add_step(StepRow(step=step))
    assert told == [f"{PREFIX}cannot write {writer.path} (the disk is too slow for what is recorded)"]
    assert not writer._batch
    writer.close()


def test_a_row_that_cannot_be_stored_ends_recording_only(tmp_path):
    told = []
    writer = RunWriter(tmp_path / "run.gradclip", on_failure=told.append)
    writer.add_step(StepRow(step=0, loss="high"))
    assert not train_on(writer)
    assert told == [f"{PREFIX}cannot write {writer.path} (could not convert string to float: 'high')"]


def test_the_warning_is_given_once_and_not_raised_where_warnings_are_errors(tmp_path, capsys):
    with pytest.warns(RuntimeWarning, match="recording stopped, training goes on") as given:
        train_on(RunWriter(tmp_path / "no" / "run.gradclip"))
    assert len(given) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_on(RunWriter(tmp_path / "no" / "run.gradclip"))
    assert capsys.readouterr().err.count(f"gradclip: {PREFIX}") == 1


def test_a_callback_that_fails_or_closes_the_run_does_no_harm(tmp_path):
    def careless(_):
        writer.close()
        raise RuntimeError

    writer = RunWriter(tmp_path / "run.gradclip", on_failure=careless)
    writer.add_step(StepRow(step="zero"))
    train_on(writer)
    assert writer.failed
