"""Ends that leave no time to say goodbye: the file opens, and no more than the last second is missing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

from gradclip.runs import Run
from tests.scripts.support import program, watched


def test_kill_9(tmp_path):
    command = [sys.executable, "-m", "gradclip", "run", "--no-report", *program("endless")]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        times = {}
        for line in process.stdout:
            times[int(line)] = time.monotonic()
            if len(times) > 300 and time.monotonic() - times[0] > 5:
                break
        process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        process.wait()
    (path,) = (tmp_path / "runs").glob("*.gradclip")
    with Run.open(path) as run:
        assert run.status == "killed"
        assert {e.kind: e.place.rpartition("/")[2] for *_, events in run.events() for e in events if e.place} == {
            "zero_grad": "endless.py:13",
            "backward": "endless.py:14",
            "step": "endless.py:15",
        }
        steps = run.steps().step.tolist()
        assert steps == list(range(len(steps)))
        assert len(steps) >= sum(when < killed - 3.0 for when in times.values()) > 0


def test_leaving_at_once(tmp_path):
    left = watched(program("endless", "--exit"), tmp_path)
    assert left.code == 7
    assert left.said == []
    with left.open() as run:
        assert len(run.steps()) > 100
        assert run.status == "killed"


def test_on_a_terminal(tmp_path):
    """The status line and the script's own output on one terminal, and the terminal as it was at the end."""
    import pty

    words = [sys.executable, "-m", "gradclip", "run", "--no-report", *program("adam_scheduled")]
    far, near = pty.openpty()
    process = subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=near, stdin=near, env={**os.environ, "TERM": "xterm"}
    )
    os.close(near)
    text = ""
    try:
        while piece := os.read(far, 65536):
            text += piece.decode()
    except OSError:  # the other end was closed
        pass
    assert process.wait() == 0
    os.close(far)
    assert "gradclip: 12 steps recorded, finished" in text
    assert len(text.splitlines()) <= 12
    regions = re.findall(r"\x1b\[[\d;]*r", text)
    assert not regions or regions[-1] == "\x1b[r"
