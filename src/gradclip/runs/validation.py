"""What each column of a run file may hold. A cell that holds anything else is damage, and nothing is made of it.

SQLite lets a cell hold a value of any type, whatever its column was declared as, and a file may come from anywhere: what is
checked here, the rest of the package takes for granted.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Final

from gradclip.runs.schema import COUNTS, ENDINGS, FLAGS, REALS

__all__ = ["DamageError", "checked", "json_of", "meta_of", "rates_of", "shape_of", "told"]

MOST_JSON: Final = 4 * 2**20
"""Characters of one JSON value; the longest that is written lists the tensors of a model."""
MOST_DEPTH: Final = 20
"""Lists and dicts within each other; what is written has three."""
LONGEST_NAME: Final = 10_000
"""Characters of a tensor's name, or of what an event says: an export may repeat them at every step."""
MOST_RANKS: Final = 2**20
"""Of a job."""
JOB: Final = re.compile("[0-9a-f]{16}")
"""It names a folder, so it is nothing else."""
LAST_MOMENT: Final = 253402300800.0
"""The end of the year 9999, in seconds since the epoch."""


class DamageError(ValueError):
    """A cell holds what no writer puts there; the message says which cell, and what."""


@dataclass(frozen=True, slots=True)
class Column:
    """What the cells of a column may be: ``plain`` types as they are, and whatever else ``takes`` says yes to."""

    plain: frozenset[type]
    takes: Callable[[Any], bool] = lambda _: False

    def check(self, name: str, cells: Sequence[Any]) -> None:
        """Refuse cells that are anything else.

        Raises:
            DamageError: naming the first of them.
        """
        if set(map(type, cells)) <= self.plain:
            return
        for cell in cells:
            if not (type(cell) in self.plain or self.takes(cell)):
                raise DamageError(f"{name} holds {told(cell)}")


def _whole(most: int, *, optional: bool = False) -> Column:
    return Column(frozenset({NoneType} if optional else ()), lambda cell: _is_whole(cell, most))


TEXT: Final = Column(frozenset({str}))
NAME: Final = Column(frozenset(), lambda cell: isinstance(cell, str) and len(cell) <= LONGEST_NAME)
REAL: Final = Column(frozenset({float, int, NoneType}), lambda cell: cell == "nan")
"""As ``to_real`` writes them."""
STEP: Final = _whole(2**53)
"""Beyond it, a page's JavaScript cannot tell one whole number from the next."""
NUMBER: Final = _whole(2**31)
ANY: Final = _whole(2**63)

TABLES: Final[Mapping[str, Mapping[str, Column]]] = {
    "meta": {"key": TEXT, "value": TEXT},
    "tensors": {"optimizer": NUMBER, "name": NAME, "shape": TEXT, "numel": ANY, "param_group": NUMBER},
    "steps": {
        "step": STEP,
        "optimizer": NUMBER,
        **dict.fromkeys(REALS, REAL),
        **dict.fromkeys(FLAGS, _whole(2, optional=True)),
        **dict.fromkeys(COUNTS, _whole(2**31, optional=True)),
        "lrs": Column(frozenset({str, NoneType})),
    },
    "tensor_rows": {"step": STEP, "factor": REAL, "data": Column(frozenset({bytes}))},
    "events": {
        "pattern": ANY,
        **dict.fromkeys(("kind", "function", "place", "detail"), NAME),
        **dict.fromkeys(("optimizer", "reached", "owned"), _whole(2**31, optional=True)),
        **dict.fromkeys(("norm", "threshold"), REAL),
        "sequence": NUMBER,
    },
    "step_events": {"step": STEP, "optimizer": NUMBER, "pattern": ANY},
}


def checked(cursor: sqlite3.Cursor, table: str, names: Sequence[str], size: int) -> Iterator[list[tuple[Any, ...]]]:
    """Return what a query finds in a table, column by column, so many rows at a time.

    Raises:
        DamageError: a cell holds what its column cannot.
    """
    while rows := cursor.fetchmany(size):
        cells = list(zip(*rows, strict=True))
        for name, column in zip(names, cells, strict=True):
            TABLES[table][name].check(f"{table}.{name}", column)
        yield cells


def meta_of(rows: Mapping[str, str]) -> dict[str, Any]:
    """Return the run's meta table, whose values are JSON.

    Raises:
        DamageError: a value is no JSON, or none that its key can have.
    """
    meta = {key: json_of(text, f"meta {key!r}") for key, text in rows.items()}
    for key, takes in META.items():
        if key in meta and not takes(meta[key]):
            raise DamageError(f"meta {key!r} holds {told(meta[key])}")
    return meta


def shape_of(text: str) -> tuple[int, ...]:
    """Return a tensor's shape.

    Raises:
        DamageError: it is no list of sizes.
    """
    shape = json_of(text, "tensors.shape")
    if not (isinstance(shape, list) and all(_is_whole(size, 2**63) for size in shape)):
        raise DamageError(f"tensors.shape holds {told(text)}")
    return tuple(shape)


def rates_of(text: str) -> list[float]:
    """Return the learning rates of a step.

    Raises:
        DamageError: they are no list of numbers.
    """
    rates = json_of(text, "steps.lrs")
    if not (isinstance(rates, list) and all(_is_number(rate) for rate in rates)):
        raise DamageError(f"steps.lrs holds {told(text)}")
    return [float(rate) for rate in rates]


def json_of(text: str, where: str) -> Any:
    """Return what JSON says.

    Raises:
        DamageError: it is none, or longer or deeper than any that is written; ``where`` names it.
    """
    if len(text) > MOST_JSON:
        raise DamageError(f"{where} holds {len(text):,} characters")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise DamageError(f"{where} holds no JSON but {told(text)}") from None
    level = [value]
    for _ in range(MOST_DEPTH):
        inner = [one for one in level if isinstance(one, (list, dict))]
        level = [part for one in inner for part in (one.values() if isinstance(one, dict) else one)]
        if not level:
            return value
    raise DamageError(f"{where} holds JSON that is more than {MOST_DEPTH} levels deep")


def told(value: object) -> str:
    """Return a value for a message: its type, and its beginning.

    >>> told("high"), told(None), told(b"1234"), told(7)
    ("the text 'high'", 'nothing', '4 bytes', '7')
    """
    if value is None:
        return "nothing"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, str):
        return f"the text {value[:40]!r}" + ("..." if len(value) > 40 else "")
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__}"
    return repr(value)


def _is_whole(value: object, most: int) -> bool:
    return type(value) is int and 0 <= value < most


def _is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _is_moment(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value < LAST_MOMENT  # type: ignore[arg-type, operator]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_job(value: object) -> bool:
    if not isinstance(value, dict) or not {"rank", "size", "key", "began"} <= value.keys():
        return False
    size, key = value["size"], value["key"]
    named = _is_text(key) and bool(JOB.fullmatch(key))
    return named and _is_whole(size, MOST_RANKS) and _is_whole(value["rank"], size) and _is_moment(value["began"])


def _are_shards(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_shard, value))


def _is_shard(value: object) -> bool:
    if not isinstance(value, dict) or not {"shards", "shard", "tensors"} <= value.keys():
        return False
    shards, shard, tensors = value["shards"], value["shard"], value["tensors"]
    places = isinstance(tensors, list) and all(_is_whole(place, 2**31) for place in tensors)
    return places and _is_whole(shards, MOST_RANKS) and (shard is None or _is_whole(shard, shards))


META: Final[Mapping[str, Callable[[Any], bool]]] = {
    "status": lambda value: value in ("running", *ENDINGS, "incomplete"),
    **dict.fromkeys(("created", "heartbeat"), _is_moment),
    **dict.fromkeys(("host", "boot", "pid_namespace", "process_started", "cwd", "failure"), _is_text),
    "pid": lambda value: _is_whole(value, 2**31),
    "command": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "clip": lambda value: value is None or isinstance(value, str),
    "every": lambda value: 1 <= value < 2**31 if type(value) is int else False,
    "job": _is_job,
    "shards": lambda value: isinstance(value, dict) and all(map(_are_shards, value.values())),
}
"""What the keys can have that more is made of than text; any other may have any JSON."""
