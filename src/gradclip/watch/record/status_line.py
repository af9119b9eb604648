"""One quiet line at the foot of the terminal while a script trains."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import Final, TextIO

from gradclip.runs.totals import Totals

__all__ = ["StatusLine"]

INTERVAL: Final = 0.5
SAVE, RESTORE, ERASE = "\0337", "\0338", "\033[2K"


class StatusLine:
    """Show step, loss, norm and clip rate on a line that the script's own output never reaches.

    The terminal scrolls only above its last line, as package managers do it. Nothing is written where standard error is no
    terminal, or the terminal is too small.

    Args:
        totals: what is shown, kept current by the recorder.
        stream: the terminal; standard error unless given.
    """

    def __init__(self, totals: Totals, stream: TextIO | None = None) -> None:
        self._totals = totals
        self._file = _terminal(stream or sys.__stderr__)
        self._pid, self._rows, self._shown = os.getpid(), 0, ""
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        if self._file is not None:
            self._thread = threading.Thread(target=self._work, name="gradclip-status", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Give the line back to the terminal."""
        if self._thread is None or self._ended.is_set() or os.getpid() != self._pid:
            return
        self._ended.set()
        self._thread.join(2)
        if self._rows:
            self._write(f"{SAVE}\033[r\033[{self._rows};1H{ERASE}{RESTORE}")

    def _work(self) -> None:
        while not self._ended.wait(INTERVAL):
            if self._totals.steps:
                self._show()

    def _show(self) -> None:
        try:
            columns, rows = os.get_terminal_size(self._file or 2)
        except OSError:
            return
        if rows < 5:
            return
        if rows != self._rows:
            # One line down, so that the cursor is not on the last line, and up again in the same column.
            old = f"\033[{self._rows};1H{ERASE}" if 0 < self._rows < rows else ""
            self._write(f"\033D{SAVE}{old}\033[1;{rows - 1}r{RESTORE}\033[1A")
            self._rows, self._shown = rows, ""
        text = status_text(self._totals)[: columns - 1]
        if text != self._shown:
            self._shown = text
            self._write(f"{SAVE}\033[{rows};1H{ERASE}\033[2m{text}\033[0m{RESTORE}")

    def _write(self, text: str) -> None:
        """Past the buffers of the script's own stream, in one piece."""
        with contextlib.suppress(OSError):  # the terminal was closed
            os.write(self._file or 2, text.encode("ascii", "replace"))


def _terminal(stream: TextIO | None) -> int | None:
    """Return the file number of a terminal that can be written all over; None for anything else."""
    if stream is None or os.environ.get("TERM", "dumb") == "dumb":
        return None
    try:
        return stream.fileno() if stream.isatty() else None
    except (OSError, ValueError):
        return None


def status_text(totals: Totals) -> str:
    """Return the line.

    >>> status_text(Totals(steps=12, loss=1.5, norm=3.25, clipped=3, clip_attempts=12))
    'gradclip  step 12  loss 1.5  norm 3.25  clipped 25%'
    """
    parts = [f"step {totals.steps}"]
    if totals.loss == totals.loss:
        parts.append(f"loss {totals.loss:.4g}")
    parts.append(f"norm {totals.norm:.4g}{' of this rank' if totals.sharded else ''}")
    if totals.clip_attempts:
        parts.append(f"clipped {totals.clipped / totals.clip_attempts:.0%}")
    if totals.nonfinite:
        parts.append(f"non-finite {totals.nonfinite}")
    return "gradclip  " + "  ".join(parts)
