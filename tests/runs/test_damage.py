"""A file that is no run, or no whole one, is one kind of error with one sentence."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3

import numpy as np
import pytest

from gradclip.errors import GradclipError
from gradclip.runs import KINDS, Run, RunFileError, RunWriter, StepRow
from gradclip.runs.schema import VERSION
from tests.runs.support import recorded


def read_everything(path):
    with Run.open(path) as run:
        run.meta, run.status, run.tensors, run.optimizers, run.steps(), run.events(), run.learning_rates()
        for kind in KINDS:
            run.tensor_matrix(kind)
        return run.steps()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("whole") / "run.gradclip", steps=3000, width=20)


def altered(path, *statements):
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()
    return path


def make(tmp_path, case):
    path = tmp_path / "run.gradclip"
    if case == "garbage":
        path.write_bytes(random.Random(0).randbytes(50_000))
    elif case == "text":
        path.write_text("step,loss\n0,1.0\n")
    elif case == "empty":
        path.touch()
    elif case == "folder":
        path.mkdir()
    elif case == "other database":
        altered(path, "CREATE TABLE meta (key, value)")
    elif case == "newer":
        altered(recorded(path), f"PRAGMA user_version = {VERSION + 1}")
    elif case == "no steps":
        altered(recorded(path), "DROP TABLE steps")
    elif case == "bad json":
        altered(recorded(path), "UPDATE meta SET value = '{' WHERE key = 'title'")
    elif case == "word":
        altered(recorded(path), "UPDATE steps SET loss = 'high'")
    elif case == "bad shape":
        altered(recorded(path), "UPDATE tensors SET shape = '7'")
    return path


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("missing", "there is no file PATH"),
        ("folder", "PATH is a folder; name one of the .gradclip files in it"),
        ("garbage", "PATH is not a gradclip run"),
        ("text", "PATH is not a gradclip run"),
        ("other database", "PATH is not a gradclip run"),
        ("empty", "PATH is empty: its run was cut short before anything was written"),
        ("newer", f"PATH was written by a newer gradclip (schema {VERSION + 1}, this one reads {VERSION}); update gradclip"),
        ("no steps", "PATH is damaged: tables are missing"),
        ("bad json", "PATH is damaged: meta 'title' holds no JSON but the text '{'"),
        ("word", "PATH is damaged: steps.loss holds the text 'high'"),
        ("bad shape", "PATH is damaged: tensors.shape holds the text '7'"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, case, sentence):
    path = make(tmp_path, case)
    with pytest.raises(RunFileError) as caught:
        read_everything(path)
    assert str(caught.value) == sentence.replace("PATH", str(path))
    assert isinstance(caught.value, GradclipError)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_short(tmp_path, whole, share):
    path = tmp_path / "run.gradclip"
    content = whole.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(RunFileError):
        read_everything(path)


@pytest.mark.parametrize("seed", range(25))
def test_flipped_bytes_are_an_error_of_ours_or_go_unnoticed(tmp_path, whole, seed):
    generator = random.Random(seed)
    content = bytearray(whole.read_bytes())
    for _ in range(200):
        content[generator.randrange(len(content))] = generator.randrange(256)
    path = tmp_path / "run.gradclip"
    path.write_bytes(content)
    with contextlib.suppress(RunFileError):
        read_everything(path)


def test_the_log_of_a_run_that_did_not_end_may_be_torn_or_missing(tmp_path):
    """Each write is whole or not there: cut the log anywhere and a beginning of the run is left."""
    writer = RunWriter(tmp_path / "run.gradclip")
    for step in range(20):
        writer.add_step(StepRow(step=step))
        writer.flush()
    log = (tmp_path / "run.gradclip-wal").read_bytes()
    found = []
    for number, share in enumerate(np.linspace(0, 1, 9)):
        copy = tmp_path / f"copy{number}.gradclip"
        shutil.copy(writer.path, copy)
        copy.with_name(copy.name + "-wal").write_bytes(log[: int(len(log) * share)])
        steps = read_everything(copy)
        assert steps.step.tolist() == list(range(len(steps)))
        found.append(len(steps))
    writer.close()
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 20)
    shutil.copy(tmp_path / "copy8.gradclip", tmp_path / "alone.gradclip")
    assert len(read_everything(tmp_path / "alone.gradclip")) == 0


def test_a_forged_file_runs_nothing(tmp_path):
    """A view in the place of a table is no table, and a trigger has nothing to wait for."""
    path = recorded(tmp_path / "run.gradclip")
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    altered(path, "DROP TABLE steps", f"CREATE VIEW steps AS {endless}")
    with pytest.raises(RunFileError, match="tables are missing"):
        Run.open(path)


def test_reading_writes_nothing(tmp_path, reading):
    run = reading(recorded(tmp_path / "run.gradclip"))
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        run._connection.execute("DELETE FROM steps")
