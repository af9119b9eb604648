"""Every run has a file of its own."""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from gradclip.runs import RunFileError, RunWriter, list_runs, new_run_path
from tests.runs.support import PREFIX, start, train_on


def test_a_second_run_never_writes_into_the_file_of_the_first(tmp_path, reading):
    told = []
    first = RunWriter(tmp_path / "run.gradclip")
    train_on(RunWriter(first.path, on_failure=told.append), steps=9)
    train_on(first)
    assert told == [f"{PREFIX}{first.path} already holds data; every run needs a file of its own"]
    assert len(reading(first.path).steps()) == 3
    notes = tmp_path / "notes.gradclip"
    notes.write_text("my notes, " * 100)
    train_on(RunWriter(notes, on_failure=told.append))
    assert told[1:] == [f"{PREFIX}cannot write {notes} (file is not a database)"]
    assert notes.read_text() == "my notes, " * 100


def test_two_writers_that_race_for_one_empty_file(tmp_path, reading):
    path = tmp_path / "run.gradclip"
    path.touch()
    told = []
    with ThreadPoolExecutor(4) as pool:
        writers = list(pool.map(lambda _: RunWriter(path, on_failure=told.append), range(4)))
    (winner,) = [writer for writer in writers if writer.recording]
    assert len(told) == 3
    assert all("already holds data" in sentence for sentence in told)
    train_on(winner)
    assert len(reading(path).steps()) == 3


def test_runs_that_start_at_the_same_moment_have_files_of_their_own(tmp_path):
    program = "sys.stdin.readline(); print(*[new_run_path(sys.argv[1], 'my train').name for _ in range(25)], sep='\\n')"
    processes = [start(program, tmp_path / "runs", stdin=subprocess.PIPE) for _ in range(4)]
    names = []
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        names += process.communicate(timeout=60)[0].split()
    assert len(names) == len(set(names)) == 100
    assert sorted(os.listdir(tmp_path / "runs")) == sorted(names)
    assert all(name.endswith(".gradclip") and "_my_train" in name for name in names)


def test_runs_are_listed_the_latest_first_with_the_reason_where_one_cannot_be_read(tmp_path):
    for title in ("first", "second"):
        writer = RunWriter(new_run_path(tmp_path, title), {"title": title, "created": time.time()})
        writer.close()
    (tmp_path / "a.gradclip").touch()
    os.utime(tmp_path / "a.gradclip", (0, 0))
    (tmp_path / "notes.txt").write_text("not a run")
    runs = list_runs(tmp_path)
    assert [(run.title, run.status) for run in runs] == [("second", "finished"), ("first", "finished"), ("", "unreadable")]
    assert runs[2].problem == f"{tmp_path}/a.gradclip is empty: its run was cut short before anything was written"
    with pytest.raises(RunFileError, match="there is no folder"):
        list_runs(tmp_path / "no")
