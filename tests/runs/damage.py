"""Ways to damage a run file: each changes a copy, and is told by its name. They go by the tables that the file has."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

Damage = Callable[[Path], None]

PAGE = 16384
"""Bytes."""
DEEP = 200_000
"""Brackets within brackets."""

CELLS = {
    "null": "NULL",
    "huge": "9223372036854775807",
    "lowest": "-9223372036854775808",
    "minus one": "-1",
    "zero": "0",
    "2**53": "9007199254740992",
    "2**33": "8589934592",
    "half": "0.5",
    "1e308": "1e308",
    "inf": "9e999",
    "minus inf": "-9e999",
    "nan": "'nan'",
    "no text": "''",
    "text": "'some text'",
    "number as text": "'1e400'",
    "long text": "replace(hex(zeroblob(50000)), '0', 'x')",
    "no utf-8": "CAST(x'ff80fe' AS TEXT)",
    "nul": "CAST(x'410042' AS TEXT)",
    "control": "char(27) || '[2J' || char(8238)",
    "no bytes": "x''",
    "bytes": "x'00ff0102'",
    "odd bytes": "x'0102030405'",
    "many bytes": "zeroblob(100000)",
    "deep list": f"replace(hex(zeroblob({DEEP // 2})), '0', '[')",
    "deep dict": f"""replace(hex(zeroblob({DEEP // 2})), '0', '{{"a":')""",
    "deep and closed": f"replace(hex(zeroblob({DEEP // 2})), '0', '[') || replace(hex(zeroblob({DEEP // 2})), '0', ']')",
    "json null": "'null'",
    "json number": "'7'",
    "json negative": "'-7'",
    "json fraction": "'0.5'",
    "json huge": f"'1{'0' * 400}'",
    "json digits": f"'1{'0' * 5000}'",
    "json infinite": "'1e999'",
    "json nan": "'NaN'",
    "json true": "'true'",
    "json text": """'"text"'""",
    "json surrogate": r"""'"\ud800"'""",
    "json list": "'[]'",
    "json lists": "'[[],[[]]]'",
    "json mixed": """'[1,"a",null,{}]'""",
    "json numbers": "'[1,2,3,4,5,6,7]'",
    "json dict": "'{}'",
    "json dicts": """'{"0":{"1":[]},"a":null}'""",
    "json open": "'[1,'",
}
"""What a cell can hold instead, as SQL."""

STATEMENTS = {
    "no version": "PRAGMA user_version = 0",
    "negative version": "PRAGMA user_version = -7",
    "newer": "PRAGMA user_version = 99",
    "other program": "PRAGMA application_id = 1",
    "gap": "UPDATE steps SET step = step + 4611686018427387904 WHERE step > 3",
    "gap in rows": "UPDATE tensor_rows SET step = step + 4611686018427387904 WHERE step > 3",
    "negative steps": "UPDATE steps SET step = -step - 1",
    "optimizers apart": "UPDATE tensors SET optimizer = optimizer * 1000000000",
    "many optimizers": "UPDATE steps SET optimizer = step * 1000000007",
    "tensors of no optimizer": "UPDATE tensors SET optimizer = 7",
    "norms gone": "DELETE FROM tensor_rows WHERE kind = 1",
    "factors only": "UPDATE tensor_rows SET data = NULL, factor = 2.0",
    "neither": "UPDATE tensor_rows SET data = NULL, factor = NULL",
    "kinds renamed": "UPDATE kinds SET name = name || 's'",
    "kinds swapped": "UPDATE kinds SET id = 10 - id",
    "names alike": "UPDATE tensors SET name = 'w'",
    "longer rows": "UPDATE tensor_rows SET data = data || data WHERE data IS NOT NULL",
    "shorter rows": "UPDATE tensor_rows SET data = substr(data, 1, 4) WHERE data IS NOT NULL AND step % 2",
    "torn rows": "UPDATE tensor_rows SET data = substr(data, 1, 5) WHERE data IS NOT NULL",
    "other index": "DROP INDEX tensor_rows_by_step; CREATE INDEX tensor_rows_by_step ON tensor_rows (abs(step))",
    "a view": "ALTER TABLE steps RENAME TO old; CREATE VIEW steps AS SELECT * FROM old",
    "a trigger": "CREATE TRIGGER t AFTER UPDATE ON meta BEGIN DELETE FROM steps; END",
    "a virtual table": "DROP TABLE meta; CREATE VIRTUAL TABLE meta USING fts5(key, value)",
    "a generated column": "ALTER TABLE steps DROP COLUMN loss; ALTER TABLE steps ADD COLUMN loss AS (hex(zeroblob(900000000)))",
    "sql garbage": "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = 'CREATE TABLE meta (' WHERE name = 'meta'",
    "wrong root": "PRAGMA writable_schema = ON; UPDATE sqlite_master SET rootpage = 2 WHERE type = 'table'",
    "root beyond": "PRAGMA writable_schema = ON; UPDATE sqlite_master SET rootpage = 99999 WHERE name = 'steps'",
    "more tensors than rows": """
        WITH RECURSIVE n (i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
        INSERT INTO tensors (optimizer, id, name, shape, numel, param_group) SELECT 0, i, 'x', '[1]', 1, 0 FROM n""",
    "one row of many rates": """
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
        UPDATE steps SET lrs = (SELECT '[' || group_concat(i) || ']' FROM n) WHERE step = 2""",
}
"""Damage by one statement or two, whatever the schema's version."""


def damages(whole: Path, seed: int = 0) -> Iterator[tuple[str, Damage]]:
    """Every way, with what makes it; the same for the same file and seed."""
    yield from _bytes(whole.stat().st_size, random.Random(seed))
    for name, script in STATEMENTS.items():
        yield f"sql: {name}", _sql(script)
    with contextlib.closing(sqlite3.connect(whole)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")] for table in tables}
        keys = [key for (key,) in connection.execute("SELECT key FROM meta ORDER BY key")]
    for table in tables:
        yield f"{table}: dropped", _sql(f"DROP TABLE {table}")
        yield f"{table}: emptied", _sql(f"DELETE FROM {table}")
        yield f"{table}: each row twice", _loose(table, f"INSERT INTO {table} SELECT * FROM {table}")
        yield f"{table}: rows from behind", _loose(table, f"CREATE TABLE o AS SELECT * FROM {table} ORDER BY rowid DESC", f"DELETE FROM {table}", f"INSERT INTO {table} SELECT * FROM o")  # fmt: skip  # noqa: E501
        for column in columns[table]:
            yield f"{table}.{column}: dropped", _loose(table, f"ALTER TABLE {table} DROP COLUMN {column}")
            for name, value in CELLS.items():
                yield f"{table}.{column} = {name}", _loose(table, f"UPDATE {table} SET {column} = {value}")
                last = f"rowid = (SELECT max(rowid) FROM {table})"
                yield f"{table}.{column} = {name} once", _loose(table, f"UPDATE {table} SET {column} = {value} WHERE {last}")
    for key in keys:
        yield f"meta {key}: gone", _sql(f"DELETE FROM meta WHERE key = '{key}'")
        for name, value in CELLS.items():
            yield f"meta {key} = {name}", _loose("meta", f"UPDATE meta SET value = {value} WHERE key = '{key}'")


def _bytes(size: int, generator: random.Random) -> Iterator[tuple[str, Damage]]:
    for count in (1, 10, 100, 1000):
        for number in range(60):
            yield (
                f"bytes: {count} flipped, {number}",
                _flipped([generator.randrange(size) for _ in range(count)], generator.random()),
            )
    for number in range(40):
        page = generator.randrange(size // PAGE) * PAGE
        places = [page + generator.randrange(40) for _ in range(3)]
        yield f"bytes: a page's head, {number}", _flipped(places, generator.random())
    for number in range(20):
        yield f"bytes: cut, {number}", _cut(generator.randrange(size))
    for page in range(size // PAGE):
        yield f"bytes: cut at page {page}", _cut(page * PAGE)
        yield f"bytes: page {page} zeroed", _page(page, lambda content, page: bytes(PAGE))
        yield (
            f"bytes: page {page} as the next",
            _page(page, lambda content, page: content[(page + 1) * PAGE : (page + 2) * PAGE]),
        )
        yield f"bytes: page {page} as the last", _page(page, lambda content, page: content[-PAGE:])
        yield f"bytes: page {page} as noise", _page(page, lambda content, page: random.Random(page).randbytes(PAGE))
    for name, log in {
        "noise": random.Random(1).randbytes(50_000),
        "zeros": bytes(50_000),
        "head": bytes.fromhex("377f0682002de218"),
    }.items():
        yield f"bytes: a log of {name}", _beside("-wal", log)
        yield f"bytes: a journal of {name}", _beside("-journal", log)


def _flipped(places: list[int], seed: float) -> Damage:
    def damage(path: Path) -> None:
        generator, content = random.Random(seed), bytearray(path.read_bytes())
        for place in places:
            content[place] = generator.randrange(256)
        path.write_bytes(content)

    return damage


def _cut(length: int) -> Damage:
    return lambda path: path.write_bytes(path.read_bytes()[:length]) and None


def _page(page: int, changed: Callable[[bytes, int], bytes]) -> Damage:
    def damage(path: Path) -> None:
        content = path.read_bytes()
        new = changed(content, page)
        path.write_bytes(content[: page * PAGE] + new + content[(page + 1) * PAGE :])

    return damage


def _beside(end: str, content: bytes) -> Damage:
    return lambda path: path.with_name(path.name + end).write_bytes(content) and None


def _sql(script: str) -> Damage:
    def damage(path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection, contextlib.suppress(sqlite3.Error):
            connection.executescript(script)

    return damage


def _loose(table: str, *statements: str) -> Damage:
    """Change a table that takes anything: without types, keys and constraints."""

    def damage(path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA table_info({table})"))
            with contextlib.suppress(sqlite3.Error):
                connection.executescript(
                    f"BEGIN; ALTER TABLE {table} RENAME TO strict; CREATE TABLE {table} ({columns});"
                    f"INSERT INTO {table} SELECT * FROM strict; DROP TABLE strict; {';'.join(statements)}; COMMIT"
                )

    return damage
