"""Names for run files."""

from __future__ import annotations

import os
import sys
import time
from itertools import count
from pathlib import Path
from typing import Final

from gradclip._write import make_file, make_folder
from gradclip.runs.schema import SUFFIX, RunFileError

__all__ = ["RANKS", "new_rank_path", "new_run_path"]

RANKS: Final = "ranks"
"""The folder, beside the run files, of what other ranks of a job record."""


def new_run_path(folder: str | os.PathLike[str] = "runs", label: str | None = None) -> Path:
    """Make an empty file with a name of its own, such as ``runs/2026-11-21_14-03-22_train.gradclip``.

    The file is made in the same moment as the name is taken, so two runs that start at once never share one.

    Args:
        folder: where runs are kept; made if it does not exist.
        label: what the name ends with; the running script's name unless it is given.

    Raises:
        RunFileError: the folder cannot be made or written to.
    """
    return _new_file(Path(folder), f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{_label(label)}")


def new_rank_path(folder: str | os.PathLike[str], job: str, rank: int) -> Path:
    """Make an empty file for a rank of a job that is not the first, such as ``runs/ranks/4b1d0c2f9a7e8d35/1.gradclip``.

    Args:
        folder: where runs are kept.
        job: what the ranks of the job have in common.
        rank: its number.

    Raises:
        RunFileError: the folder cannot be made or written to.
    """
    return _new_file(Path(folder, RANKS, job), str(rank))


def _new_file(folder: Path, stem: str) -> Path:
    try:
        make_folder(folder)
        for number in count(1):
            path = folder / (stem + (f"-{number}" if number > 1 else "") + SUFFIX)
            if make_file(path):
                return path
    except OSError as error:
        raise RunFileError(
            f"cannot make a run file in {folder} ({error.strerror}); name a folder that can be written to"
        ) from error
    raise AssertionError("unreachable: the numbers do not end")


def _label(label: str | None) -> str:
    """Letters, digits, dots, dashes and underscores only; short enough for every file system.

    >>> _label("my script.py"), _label("../../etc"), _label("")
    ('my_script.py', 'etc', 'run')
    """
    if label is None:
        label = Path(sys.argv[0] if sys.argv else "").stem
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in label)
    return kept.strip("._-")[:40] or "run"
