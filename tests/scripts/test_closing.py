"""The end of a watched script, page and all: its exit code and its words stay its own, and what is said is right."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from gradclip.runs import Run
from tests.scripts.support import plain, python, watched
from tests.scripts.test_programs import same

SCRIPT = """\
import os, signal, sys, time

os.makedirs("elsewhere", exist_ok=True)
os.chdir("elsewhere")

import torch

model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(12):
    optimizer.zero_grad()
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
print("trained")
ENDING
"""
SIGNAL = "os.kill(os.getpid(), signal.{})\ntime.sleep(20)"
ENDINGS = {
    "returns": ("", 0, "finished"),
    "raises": ("raise OSError('no')", 1, "crashed"),
    "exits": ("sys.exit(3)", 3, "finished"),
    "interrupted": (SIGNAL.format("SIGINT"), -signal.SIGINT, "interrupted"),
    "terminated": (SIGNAL.format("SIGTERM"), -signal.SIGTERM, "killed"),
}
CHILD = """\
import os, signal, sys, time

if sys.flags.isolated:  # the process that writes the page
    with open({pid!r}, "w") as file:
        file.write(str(os.getpid()))
    os.kill(os.getppid(), signal.{name})
    time.sleep({seconds})
"""
NAMESAKE = "with open({log!r}, 'a') as file:\n    file.write(__name__ + ' ')\n"
FORMATTING = "gradclip.diagnosis.formatting"
NAMESAKES = ("gradclip", "html", "plotly", "typer", "rich", "sitecustomize")


def script(folder, ending="", goes="elsewhere"):
    """Write the script that goes to a folder and ends in some way, and return its words."""
    (folder / "train.py").write_text(SCRIPT.replace("ENDING", ending).replace("elsewhere", goes))
    return ["train.py"]


@pytest.mark.parametrize("report", [True, False], ids=["page", "no page"])
@pytest.mark.parametrize("name", ENDINGS)
def test_the_exit_code_is_the_scripts_own(name, report, tmp_path):
    ending, code, status = ENDINGS[name]
    words = script(tmp_path, ending)
    usual = plain(words, tmp_path)
    assert usual.code == code
    under_watch = watched(words, tmp_path, "--report" if report else "--no-report")
    same(usual, under_watch)
    with under_watch.open() as run:
        assert run.status == status
    if name == "terminated":
        assert under_watch.said == []
        return
    assert under_watch.said[0] == f"12 steps recorded, {status}"
    assert [line for line in under_watch.said if line.startswith(("checks", "found"))]
    kind, path = under_watch.said[-1].split()
    assert (kind, path.startswith("runs/")) == ("report" if report else "run", True)
    assert (tmp_path / path).is_file()
    assert under_watch.said[-2].startswith(("checks", "found"))
    assert [*(tmp_path / "runs").glob("*.html")] == ([tmp_path / path] if report else [])


def test_a_run_is_replayed_where_it_was_started(tmp_path):
    with watched(script(tmp_path), tmp_path).open() as run:
        assert run.meta["cwd"] == str(tmp_path)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 3), ("SIGTERM", -signal.SIGTERM)])
def test_a_signal_while_the_page_is_written(name, code, tmp_path):
    """The process that writes it signals the script's, and works or sleeps on; in the end neither is there."""
    site, pid = tmp_path / "site", tmp_path / "pid"
    site.mkdir()
    seconds = 60 if name == "SIGINT" else 0
    (site / "sitecustomize.py").write_text(CHILD.format(pid=str(pid), name=name, seconds=seconds))
    paths = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = watched(script(tmp_path, "sys.exit(3)"), tmp_path, "--report", PYTHONPATH=paths)
    assert done.code == code
    assert done.said[0] == "12 steps recorded, finished"
    assert done.others == []
    if name == "SIGINT":
        path = done.said[-2].removeprefix("run     ")
        assert done.said[-1] == f"report  not made (interrupted); make it with: gradclip report {path}"
        assert (tmp_path / path).is_file()
    deadline = time.monotonic() + 60
    while is_there(int(pid.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with done.open() as run:
        assert run.status == "finished"


def is_there(pid):
    """Whether a process runs; one that has ended and is not waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("closed", ["1", "2"], ids=["stdout", "stderr"])
def test_a_closed_stream(closed, tmp_path):
    words = [sys.executable, "-m", "gradclip", "run", *script(tmp_path, "sys.exit(3)")]
    command = ["sh", "-c", f'exec "$@" {closed}>&-', "sh", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 3
    if closed == "1":
        assert re.search("^gradclip: report  runs/.*html$", done.stderr, re.MULTILINE)
    else:
        assert done.stdout == "trained\n"
    (page,) = (tmp_path / "runs").glob("*.html")
    (run,) = (tmp_path / "runs").glob("*.gradclip")
    with Run.open(run) as opened:
        assert opened.status == "finished"
    assert "</html>" in page.read_text()


def test_what_lies_in_the_current_folder_is_not_taken_for_a_module(tmp_path):
    log = tmp_path / "executed"
    for name in NAMESAKES:
        (tmp_path / f"{name}.py").write_text(NAMESAKE.format(log=str(log)))
    words = script(tmp_path, goes=".")
    usual = plain(words, tmp_path)
    by_itself = log.read_text() if log.exists() else ""
    log.unlink(missing_ok=True)
    under_watch = python("-P", "-m", "gradclip", "run", tmp_path / words[0], cwd=tmp_path)
    same(usual, under_watch)
    assert (log.read_text() if log.exists() else "") == by_itself
    assert (tmp_path / under_watch.said[-1].removeprefix("report  ")).is_file()
    assert under_watch.said[-2].startswith(("checks", "found"))


def test_a_path_with_the_current_folder_in_it_still_leads_to_the_real_modules(tmp_path):
    """With the folder in PYTHONPATH, a script may take what lies there for a module; the page does not."""
    (tmp_path / "html.py").write_text("raise RuntimeError('not the real one')\n")
    paths = os.pathsep.join([".", *filter(None, [os.environ.get("PYTHONPATH")])])
    # What the command itself imports is not asked here.
    start = "import sys; sys.path.remove(sys.argv[1]); del sys.argv[1]; from gradclip.cli import app; app(prog_name='gradclip')"
    done = python("-P", "-c", start, tmp_path, "run", *script(tmp_path, goes="."), cwd=tmp_path, PYTHONPATH=paths)
    assert done.code == 0, done.stderr
    assert (tmp_path / done.said[-1].removeprefix("report  ")).is_file()


def test_a_watched_script_imports_what_it_needs_when_it_needs_it(tmp_path):
    show = (
        "print(*(m for m in sys.modules if m.startswith(('gradclip', 'sqlite3', 'rich', 'typer', 'plotly'))), file=sys.stderr)"
    )
    (tmp_path / "early.py").write_text(f"import sys, torch\n{show}\n")
    early = watched(["early.py"], tmp_path).others[0].split()
    assert {name.split(".")[0] for name in early} == {"gradclip"}
    assert not [name for name in early if name.startswith(("gradclip.torch", "gradclip.backends", "gradclip.runs"))]
    late = watched(script(tmp_path, show), tmp_path, "--report").others[0].split()
    assert "gradclip.runs.writer" in late
    assert not [name for name in late if name.startswith(("gradclip.diagnosis.", "gradclip.report")) and name != FORMATTING]


OWN = """\
import torch

def main():
    from gradclip.torch import Clipper, clip_grad_norm_  # before anything trains
    model = torch.nn.Linear(3, 1)
    clipper = Clipper(model, "global_norm:0.5")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(4):
        optimizer.zero_grad()
        model(torch.ones(4, 3)).sum().backward()
        clip_grad_norm_(model.parameters(), 1.0) if step % 2 else clipper.clip_()
        optimizer.step()

main()
"""


def test_the_librarys_own_clipping_is_seen_although_it_is_imported_late(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    with watched(["own.py"], tmp_path).open() as run:
        assert run.steps().threshold.tolist() == [0.5, 1.0, 0.5, 1.0]
        assert run.steps().clipped.all()
