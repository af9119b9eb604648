"""Files and folders that belong to the user alone, and that no link can lead elsewhere.

A folder may be one that others write to as well, and any of them can put a symbolic link where a file is expected. So a file is
written under a name that nobody can know, and then takes its place; a link that lies there is replaced, not followed.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["check_writable", "make_file", "make_folder", "replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file as a whole: what is there stays until the end, and stays where anything goes wrong.

    Raises:
        OSError: the file cannot be made, or what is there is no file.
    """
    _refuse_what_is_no_file(path)
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".gradclip-")  # exclusive, follows no link, mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def check_writable(path: Path) -> None:
    """Make the folders of a file, and raise the ``OSError`` of writing it now.

    Raises:
        OSError: no file can be made there, or what is there is no file.
    """
    _refuse_what_is_no_file(path)
    make_folder(path.parent)
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def make_file(path: Path) -> bool:
    """Make an empty file; False where something is there already, be it a link to nowhere."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; those that are there stay as they are."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(exist_ok=True)  # says so where it is a file


def _refuse_what_is_no_file(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    stands_for_a_stream = path.is_symlink() and os.readlink(path).startswith("/proc/")  # /dev/stdout, which all programs use
    if stands_for_a_stream or (path.exists() and not path.is_file()):
        raise OSError(errno.EINVAL, "it is no file", str(path))
