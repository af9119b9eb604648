"""Open a run file for reading, or say in one sentence why not."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from gradclip.runs import old_schema
from gradclip.runs.schema import APPLICATION_ID, SUFFIX, TABLE_NAMES, VERSION, RunFileError
from gradclip.runs.validation import TABLES, DamageError

__all__ = ["DAMAGE", "check_pages", "connect", "damaged"]

DAMAGE: Final = (sqlite3.Error, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError)
"""What a damaged or forged file makes go wrong."""
OUTSIDE: Final = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_READONLY,
}  # fmt: skip
"""What is wrong with the disk, the folder or other programs, not with the file."""
LONGEST: Final = 160
"""Characters of a reason."""
MOST_BYTES: Final = 2**26
"""What one cell can hold; the longest that is written is a row of tensors."""

WAIT: Final = 10.0
"""Seconds to wait for a writer that cannot let others read meanwhile (network disks)."""


def connect(path: Path) -> sqlite3.Connection:
    """Open a run file read-only and make sure that it is one."""
    if not path.exists():
        raise RunFileError(f"there is no file {path}")
    if path.is_dir():
        raise RunFileError(f"{path} is a folder; name one of the {SUFFIX} files in it")
    if not os.access(path, os.R_OK):
        raise RunFileError(f"{path} is not yours to read; its owner can let you, or give you a copy")
    try:
        connection = _readable(path)
        try:
            _check(path, connection)
        except BaseException:
            connection.close()
            raise
    except DAMAGE as error:
        raise damaged(path, error) from error
    return connection


def damaged(path: Path, error: Exception) -> RunFileError:
    """Return the sentence for what went wrong while reading."""
    if isinstance(error, RunFileError):
        return error
    if "not a database" in str(error):
        return RunFileError(f"{path} is not a gradclip run")
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in OUTSIDE:
        return RunFileError(f"{path} cannot be read ({error}); copy it, with the files beside it, to a folder you can write to")
    return RunFileError(f"{path} is damaged: {_one_line(str(error))}")


def _one_line(words: str) -> str:
    """Return what may come from the file as a part of a sentence."""
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in " ".join(words[:LONGEST].split()))
    return shown if len(words) <= LONGEST else f"{shown}..."


def _readable(path: Path) -> sqlite3.Connection:
    """Open read-only; on a read-only disk a run that no writer holds can only be opened as one that never changes."""
    uri = path.absolute().as_uri() + "?mode=ro"
    try:
        return _open(uri)
    except sqlite3.OperationalError:
        if _log(path).exists():
            raise
        return _open(uri + "&immutable=1")


def _open(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, timeout=WAIT, isolation_level=None)
    try:
        # The file may come from anyone: nothing in it is trusted to run, and damage is looked for.
        for setting in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON"):
            connection.execute(f"PRAGMA {setting}")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _check(path: Path, connection: sqlite3.Connection) -> None:
    # A view, or a virtual table, is worked out when it is read: it has no page of its own.
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
    names = {name for (name,) in connection.execute(tables)}
    if not names:
        raise RunFileError(f"{path} is empty: its run was cut short before anything was written")
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise RunFileError(f"{path} is not a gradclip run")
    version = _pragma(connection, "user_version")
    if version > VERSION:
        raise RunFileError(
            f"{path} was written by a newer gradclip (schema {version}, this one reads {VERSION}); update gradclip"
        )
    if not names.issuperset(old_schema.TABLE_NAMES if version < VERSION else TABLE_NAMES):
        raise RunFileError(f"{path} is damaged: tables are missing")
    expected = _pragma(connection, "page_count") * _pragma(connection, "page_size")
    if path.stat().st_size < expected and not _log(path).exists():
        raise RunFileError(f"{path} is cut short ({path.stat().st_size} of {expected} bytes); copy it again")
    if version < VERSION:
        check_pages(connection)
        old_schema.convert(connection)
    for table, columns in TABLES.items():
        there = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}  # none that is worked out
        if not there.issuperset(columns):
            raise RunFileError(f"{path} is damaged: {table} has no {', '.join(sorted(columns.keys() - there))}")


def check_pages(connection: sqlite3.Connection) -> None:
    """Let SQLite look at the structure of the file: in a damaged one, a search may never end.

    Raises:
        DamageError: it is damaged.
    """
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise DamageError(found.splitlines()[-1])


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _log(path: Path) -> Path:
    return path.with_name(path.name + "-wal")
