"""The status line, on a pseudo terminal and elsewhere."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import termios
import time

import pytest

from gradclip.runs.totals import Totals
from gradclip.watch.record import status_line
from gradclip.watch.record.status_line import StatusLine


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 24 x 40, as (its far end, the stream a program writes to)."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(status_line, "INTERVAL", 0.01)
    far, near = pty.openpty()
    fcntl.ioctl(near, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    with os.fdopen(near, "w") as stream:
        yield far, stream
    os.close(far)


def shown(far, until):
    """Read what the terminal was sent, until it matches."""
    text, end = "", time.monotonic() + 10
    while not re.search(until, text) and time.monotonic() < end:
        if select.select([far], [], [], 0.1)[0]:
            text += os.read(far, 65536).decode()
    assert re.search(until, text), repr(text)
    return text


def test_one_line_at_the_foot_and_the_terminal_given_back(terminal):
    far, stream = terminal
    totals = Totals(steps=7, loss=1.25, norm=2.5, clipped=1, clip_attempts=2)
    line = StatusLine(totals, stream)
    text = shown(far, r"step 7.*\x1b8")
    totals.steps = 123456789
    text += shown(far, r"step 123456789.*\x1b8")
    line.close()
    line.close()
    text += shown(far, r"\x1b\[r")
    time.sleep(0.05)
    assert text.count("\x1b7") == text.count("\x1b8") == 4  # set up, two lines, given back
    assert "\x1b[1;23r" in text  # the script's output scrolls above the last line
    assert text.endswith("\x1b7\x1b[r\x1b[24;1H\x1b[2K\x1b8")
    lines = re.findall(r"\x1b\[24;1H\x1b\[2K\x1b\[2m(.*?)\x1b\[0m", text)
    assert lines[0] == "gradclip  step 7  loss 1.25  norm 2.5  clipped 50%"[:39]
    assert all(len(one) < 40 for one in lines)
    assert "\n" not in text


def test_nothing_before_the_first_step(terminal):
    far, stream = terminal
    line = StatusLine(Totals(), stream)
    time.sleep(0.1)
    line.close()
    os.set_blocking(far, False)
    with pytest.raises(BlockingIOError):
        os.read(far, 1)


def test_nothing_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    line = StatusLine(Totals(steps=3), stream)
    line.close()
    assert line._thread is None
    assert stream.getvalue() == ""


def test_nothing_on_a_dumb_terminal(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert StatusLine(Totals(steps=3), terminal[1])._thread is None
