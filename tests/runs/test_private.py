"""What gradclip writes belongs to the user alone, and no link can lead it elsewhere."""

from __future__ import annotations

import os
import stat
import sys

import pytest
from typer.testing import CliRunner

from gradclip._write import check_writable, replacing
from gradclip.cli import app
from gradclip.runs import RunWriter, StepRow, new_run_path
from tests.diagnosis.runs import recorded
from tests.runs.support import PREFIX

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and permissions are another thing there")

EXPORTS = {"csv": ["steps.csv", "norm.0.csv"], "parquet": ["steps.parquet", "tensors.parquet"]}


@pytest.fixture(autouse=True)
def generous_umask():
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def run(tmp_path):
    return recorded(tmp_path / "a.gradclip", [[1.0, 2.0]] * 20)


def call(*words, code=0):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.stderr if code else done.stdout


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def assert_own_file(path):
    assert not path.is_symlink()
    assert path.is_file()
    assert mode(path) == 0o600


@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize("command", ["report", "compare", *EXPORTS])
def test_a_planted_link_is_replaced_and_not_followed(run, tmp_path, command, dangling):
    if command in EXPORTS:
        pytest.importorskip("pyarrow")
        expected = [run.with_name(f"a-{command}") / name for name in EXPORTS[command]]
        words = ["export", run, "--to", command]
    else:
        expected = [run.with_suffix(".html")]
        words = {"report": ["report", run], "compare": ["compare", run, run, "--out", expected[0]]}[command]
    kept = tmp_path / "precious.txt"
    if not dangling:
        kept.write_text("mine")
    for path in expected:
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(kept)
    call(*words)
    assert kept.exists() != dangling
    assert dangling or kept.read_text() == "mine"
    for path in expected:
        assert_own_file(path)
        assert not list(path.parent.glob(".gradclip-*"))


def test_a_run_is_not_written_through_a_link(tmp_path):
    for target in (tmp_path / "empty", tmp_path / "not there"):
        (tmp_path / "empty").touch()
        link = tmp_path / f"link to {target.name}.gradclip"
        link.symlink_to(target)
        told = []
        RunWriter(link, on_failure=told.append).close()
        assert told == [f"{PREFIX}{link} is a link; name the file itself"]
    assert not (tmp_path / "not there").exists()
    assert (tmp_path / "empty").read_bytes() == b""


def test_files_and_new_folders_are_the_users_alone(tmp_path):
    path = new_run_path(tmp_path / "there" / "runs", "train")
    writer = RunWriter(path)
    writer.add_step(StepRow(step=0))
    writer.flush()
    assert {mode(file) for file in path.parent.iterdir()} == {0o600}
    assert len(list(path.parent.iterdir())) == 3  # with the log and its index
    writer.close()
    RunWriter(tmp_path / "named.gradclip").close()
    assert mode(tmp_path / "named.gradclip") == 0o600
    call("export", path, "--to", "csv", "--out", tmp_path / "out" / "csv")
    call("report", path, "--out", tmp_path / "pages" / "page.html")
    folders = ["there", "there/runs", "out", "out/csv", "pages"]
    assert {mode(tmp_path / folder) for folder in folders} == {0o700}
    assert_own_file(tmp_path / "out" / "csv" / "steps.csv")


def test_a_folder_that_is_there_stays_as_it_is(tmp_path):
    (tmp_path / "shared").mkdir(mode=0o775)
    new_run_path(tmp_path / "shared", "train")
    assert mode(tmp_path / "shared") == 0o775


@pytest.mark.parametrize("place", ["pipe", "link to a pipe", "link to an open file", "/dev/null"])
def test_what_is_no_file_is_never_replaced(run, tmp_path, place):
    """Root may replace /dev/null, and no program would work any more."""
    path = tmp_path / place
    if place == "pipe":
        os.mkfifo(path)
    elif place == "link to a pipe":
        os.mkfifo(tmp_path / "a pipe")
        path.symlink_to(tmp_path / "a pipe")
    elif place == "link to an open file":  # as /dev/stdout is
        path.symlink_to("/proc/self/fd/1")
    before = path.lstat()
    assert call("report", run, "--out", path, code=2) == f"cannot write {path}: it is no file; name another file with --out\n"
    assert path.lstat().st_ino == before.st_ino


def test_what_fails_half_way_leaves_what_was_there(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("before")
    with pytest.raises(TypeError), replacing(path) as file:
        file.writelines([b"half of", None])
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["page.html"]
    check_writable(path)
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_page_that_can_no_longer_be_written_is_one_sentence(run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    page = run.with_suffix(".html")
    error = call("report", run, code=2)
    assert error == f"cannot write {page}: No space left on device; name another file with --out\n"
    assert not page.exists()
