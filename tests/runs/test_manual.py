"""The manual names everything that is in the file."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from gradclip.runs.schema import APPLICATION_ID, ENDINGS, EVENT_TABLES, KINDS, PAGE_SIZE, TABLES, VERSION
from tests.runs.support import recorded

MANUAL = Path(__file__).parents[2] / "docs" / "run-file.md"


@pytest.fixture
def manual():
    return MANUAL.read_text(encoding="utf-8")


def test_every_table_column_key_and_code_is_described(tmp_path, manual):
    connection = sqlite3.connect(recorded(tmp_path / "run.gradclip"))
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        section = re.search(rf"^### .*`{table}`.*?(?=^##|\Z)", manual, re.MULTILINE | re.DOTALL)
        assert section, table
        for column in connection.execute(f"PRAGMA table_info ({table})"):
            assert re.search(rf"\b{column[1]}\b", section.group()), (table, column[1])
    keys = [key for (key,) in connection.execute("SELECT key FROM meta")]
    connection.close()
    words = [*keys, *ENDINGS, *(f"{code} `{kind}`" for kind, code in KINDS.items()), f"0x{APPLICATION_ID:x}"]
    assert [word for word in words if f"`{word}`" not in manual and word not in manual] == []
    assert f"schema **{VERSION}**" in manual
    assert f"{PAGE_SIZE} bytes" in manual
    assert len(tables) == (TABLES + EVENT_TABLES).count("CREATE TABLE")


def test_a_plain_sqlite_reader_finds_the_columns_of_the_manual_s_example(tmp_path, manual):
    query = re.search(r'sqlite3 -readonly \S+ "(.*)"', manual)
    connection = sqlite3.connect(recorded(tmp_path / "run.gradclip"))
    assert connection.execute(query.group(1)).fetchall() == []
    assert connection.execute(query.group(1).partition(" WHERE")[0]).fetchall() == [
        (0, 0.0, None),
        (1, 1.0, None),
        (2, 2.0, None),
    ]
    connection.close()
