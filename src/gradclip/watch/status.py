"""One quiet line at the foot of the terminal while a script trains."""

from __future__ import annotations

import os
import sys
import threading
from typing import Final, TextIO

from gradclip.watch.recorder import Totals

__all__ = ["StatusLine"]

INTERVAL: Final = 0.5


class StatusLine:
    """Show step, loss, norm and clip rate on a line that the script's own output never reaches.

    The terminal scrolls only above its last line, as package managers do it. Nothing is written where standard error is no
    terminal, or the terminal is too small.

    Args:
        totals: what is shown, kept current by the recorder.
        stream: the terminal; standard error unless given.
    """

    def __init__(self, totals: Totals, stream: TextIO | None = None) -> None:
        self._totals, self._stream = totals, stream or sys.__stderr__
        self._pid, self._rows, self._shown = os.getpid(), 0, ""
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        if self._stream is not None and self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            self._thread = threading.Thread(target=self._work, name="gradclip-status", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Give the line back to the terminal."""
        if self._thread is None or self._ended.is_set():
            return
        self._ended.set()
        self._thread.join(2)
        if self._rows:
            self._write(f"\0337\033[r\033[{self._rows};1H\033[2K\0338")

    def _work(self) -> None:
        while not self._ended.wait(INTERVAL):
            if os.getpid() != self._pid:
                return
            if self._totals.steps:
                self._show()

    def _show(self) -> None:
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno() if self._stream else 2)
        except (OSError, ValueError):
            return
        if rows < 5:
            return
        if rows != self._rows:
            self._rows = rows
            self._write(f"\n\0337\033[1;{rows - 1}r\0338\033[1A")
        text = status_text(self._totals)[: columns - 1]
        if text != self._shown:
            self._shown = text
            self._write(f"\0337\033[{rows};1H\033[2K\033[2m{text}\033[0m\0338")

    def _write(self, text: str) -> None:
        if self._stream is not None:
            self._stream.write(text)
            self._stream.flush()


def status_text(totals: Totals) -> str:
    """Return the line.

    >>> status_text(Totals(steps=12, loss=1.5, norm=3.25, clipped=3, watched=12))
    'gradclip  step 12  loss 1.5  norm 3.25  clipped 25%'
    """
    parts = [f"step {totals.steps}"]
    if totals.loss == totals.loss:
        parts.append(f"loss {totals.loss:.4g}")
    parts.append(f"norm {totals.norm:.4g}")
    if totals.watched:
        parts.append(f"clipped {totals.clipped / totals.watched:.0%}")
    if totals.nonfinite:
        parts.append(f"non-finite {totals.nonfinite}")
    return "gradclip  " + "  ".join(parts)
