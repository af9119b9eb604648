"""Open a run file for reading, or say in one sentence why not."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from gradclip.runs import old_schema
from gradclip.runs.schema import APPLICATION_ID, SUFFIX, TABLE_NAMES, VERSION, RunFileError

__all__ = ["connect", "damaged"]

WAIT: Final = 10.0
"""Seconds to wait for a writer that cannot let others read meanwhile (network disks)."""

DAMAGE: Final = (sqlite3.Error, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a damaged or forged file makes go wrong."""


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
    except DAMAGE as error:  # ValueError: text that is no UTF-8
        raise damaged(path, error) from error
    return connection


def damaged(path: Path, error: Exception) -> RunFileError:
    """Return the sentence for what went wrong while reading."""
    if isinstance(error, RunFileError):
        return error
    if "not a database" in str(error):
        return RunFileError(f"{path} is not a gradclip run")
    if isinstance(error, sqlite3.OperationalError):
        return RunFileError(f"{path} cannot be read ({error}); copy it, with the files beside it, to a folder you can write to")
    return RunFileError(f"{path} is damaged or cut short ({error})")


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
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _check(path: Path, connection: sqlite3.Connection) -> None:
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
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
        raise RunFileError(f"{path} is damaged or cut short (tables are missing)")
    expected = _pragma(connection, "page_count") * _pragma(connection, "page_size")
    if path.stat().st_size < expected and not _log(path).exists():
        raise RunFileError(f"{path} is cut short ({path.stat().st_size} of {expected} bytes); copy it again")
    if version < VERSION:
        old_schema.convert(connection)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _log(path: Path) -> Path:
    return path.with_name(path.name + "-wal")
