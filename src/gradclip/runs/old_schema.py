"""Read run files of schema 1, in which an event was a kind and an English sentence, and whose step it was had to be guessed."""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from gradclip.runs.schema import EVENT_TABLES, Event
from gradclip.runs.store import INSERT_EVENT, event_rows
from gradclip.runs.validation import json_of

__all__ = ["TABLE_NAMES", "convert"]

TABLE_NAMES: Final = ("meta", "kinds", "tensors", "steps", "tensor_rows", "event_patterns", "events")
CLIP: Final = re.compile(
    r"""(?P<function>.*?)(?:\ norm_type=(?P<norm>[\d.]+|inf))?(?P<infinite>\ max_norm=inf)?
    (?:\ \((?:(?P<nobody>no\ tensors?(?:\ that\ is\ trained)?)
        |(?:optimizers?\ (?P<numbers>\d+(?:,\ \d+)*))?
            (?:(?:(?<=\()|,\ )(?P<share>(?P<reached>\d+)\ of\ (?P<owned>\d+)\ tensors))?)\))?""",
    re.VERBOSE | re.DOTALL,
)
"""``clip_grad_norm_ norm_type=1.0 max_norm=inf (optimizers 0, 1, 3 of 6 tensors)``"""
INFINITE: Final = re.compile(r"_norm:inf\b")
"""A recipe that measures, no more."""
OPTIMIZER: Final = re.compile(r"(?:optimizer (\d+))?")

LINKS: Final = """
INSERT INTO temp.step_events (step, optimizer, pattern)
SELECT e.step, coalesce(o.optimizer, -1), e.pattern FROM main.events e LEFT JOIN temp.owners o USING (pattern) ORDER BY e.id
"""
UNNAMED: Final = "SELECT id, step FROM temp.step_events WHERE optimizer = -1 ORDER BY id"
LEFT_OVER: Final = """
SELECT min(optimizer) FROM main.steps WHERE step = ? AND optimizer NOT IN
    (SELECT optimizer FROM temp.step_events WHERE step = ?)
"""


def convert(connection: sqlite3.Connection) -> None:
    """Lay tables of today's schema over the events of a file, in memory; the file stays as it is."""
    execute = connection.execute
    execute("PRAGMA temp_store = MEMORY")
    execute("PRAGMA query_only = OFF")
    places = _places(connection)
    owned = dict(execute("SELECT optimizer, count(*) FROM main.tensors GROUP BY optimizer"))
    for statement in EVENT_TABLES.replace("CREATE TABLE", "CREATE TEMP TABLE").split(";"):
        execute(statement)
    execute("CREATE TEMP TABLE owners (pattern INTEGER PRIMARY KEY, optimizer INTEGER)")
    for pattern, text in execute("SELECT id, events FROM main.event_patterns").fetchall():
        calls = [(str(kind), str(detail)) for kind, detail in json_of(text, "event_patterns.events")]
        happened = [event for i, call in enumerate(calls) for event in _events(*call, i, owned, places)]
        steps = [event.optimizer for event in happened if event.kind == "step"]
        connection.executemany(INSERT_EVENT.replace("INTO ", "INTO temp."), event_rows(pattern, happened))
        execute("INSERT INTO temp.owners VALUES (?, ?)", (pattern, steps[-1] if steps else None))
    execute(LINKS)
    execute("CREATE INDEX temp.step_events_by_step ON step_events (step)")
    for row, step in execute(UNNAMED).fetchall():  # a loop without an optimizer, or a step that a GradScaler dropped
        (optimizer,) = execute(LEFT_OVER, (step, step)).fetchone()
        execute("UPDATE temp.step_events SET optimizer = ? WHERE id = ?", (0 if optimizer is None else optimizer, row))
    execute("PRAGMA query_only = ON")


def _places(connection: sqlite3.Connection) -> Mapping[str, Any]:
    """Where each event was called first, by its kind and sentence."""
    found = connection.execute("SELECT value FROM main.meta WHERE key = 'places'").fetchone()
    places = json_of(found[0], "meta 'places'") if found else None
    return places if isinstance(places, dict) else {}


def _events(kind: str, detail: str, sequence: int, owned: Mapping[int, int], places: Mapping[str, Any]) -> list[Event]:
    """Return the events of one sentence, one for each optimizer that it names; without a number it is the first."""
    event = Event(kind, place=str(places.get(f"{kind} {detail}".strip(), "")), sequence=sequence)
    if kind == "clip":
        return _clips(event, detail, owned)
    if kind == "warning":
        return [event._replace(kind="cut")]
    found = OPTIMIZER.fullmatch(detail)
    if kind in ("step", "stale", "unscale") and found:
        return [event._replace(optimizer=int(found[1] or 0))]
    return [event._replace(detail=detail)]


def _clips(event: Event, detail: str, owned: Mapping[int, int]) -> list[Event]:
    found = CLIP.fullmatch(detail)
    assert found is not None
    function, share = found["function"], found["share"]
    norm = float(found["norm"] or 2) if function == "clip_grad_norm_" else None
    limit = math.inf if found["infinite"] or INFINITE.search(function) else None
    event = event._replace(function=function, norm=norm, threshold=limit)
    if found["nobody"]:
        return [event._replace(reached=0 if found["nobody"] == "no tensors" else None, owned=0)]
    numbers = [int(number) for number in (found["numbers"] or "0").split(", ")]
    clips = [event._replace(optimizer=number, reached=owned.get(number), owned=owned.get(number)) for number in numbers]
    if share and len(clips) > 1:  # of all together; how many of each is not known
        return [clip._replace(reached=None, detail=share) for clip in clips]
    return [clips[0]._replace(reached=int(found["reached"]), owned=int(found["owned"]))] if share else clips
