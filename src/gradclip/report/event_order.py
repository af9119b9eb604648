"""In which order things happened within a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from gradclip.diagnosis.formatting import percent
from gradclip.report.table import Table
from gradclip.runs import Event

__all__ = ["order_table", "order_text"]

Happened = tuple[Event, ...]
MOST = 12
"""Orders that are listed, the most frequent first."""
LONGEST = 24
"""Events of an order that are written out."""


def order_table(events: Sequence[tuple[int, Happened]]) -> Table | None:
    """List the orders that occurred, with how often and when; None without events."""
    if not events:
        return None
    counts = Counter(happened for _, happened in events)
    first = {happened: step for step, happened in reversed(events)}
    last = {happened: step for step, happened in events}
    rows = [
        (
            f"{place}",
            f"{count:,}",
            percent(count / len(events)),
            f"{first[happened]:,}",
            f"{last[happened]:,}",
            order_text(happened),
        )
        for place, (happened, count) in enumerate(counts.most_common(MOST), 1)
    ]
    notes = [f"And {len(counts) - MOST:,} more that were rarer."] if len(counts) > MOST else []
    columns = ("order", "steps", "share", "first at", "last at", "what happened")
    return Table("What happened within a step, the most frequent order first", columns, rows, frozenset(range(1, 5)), notes)


def order_text(events: Iterable[Event]) -> str:
    """Write an order in one line; what is repeated is written once.

    >>> order_text([Event("backward"), Event("backward"), Event("clip", "agc:0.01"), Event("step")])
    '2 × backward → clip (agc:0.01) → step'
    """
    words = [f"{event.kind} ({event.detail})" if event.detail else event.kind for event in events]
    for length in (1, 2, 3):
        words = _folded(words, length)
    shown = words if len(words) <= LONGEST else [*words[:LONGEST], f"… {len(words) - LONGEST} more"]
    return " → ".join(shown) or "nothing"


def _folded(words: Sequence[str], length: int) -> list[str]:
    """Write neighbouring repeats of ``length`` words once, with their number."""
    folded: list[str] = []
    i = 0
    while i < len(words):
        unit = words[i : i + length]
        times = 1
        while words[i + times * length : i + (times + 1) * length] == unit:
            times += 1
        if times > 1:
            folded.append(f"{times} × {unit[0]}" if length == 1 else f"{times} × ({' → '.join(unit)})")
            i += times * length
        else:
            folded.append(words[i])
            i += 1
    return folded
