"""In which order things happened within a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from gradclip.diagnosis.event_text import events_text
from gradclip.diagnosis.formatting import percent
from gradclip.report.table import Table
from gradclip.runs import Event

__all__ = ["order_table", "order_text"]

Happened = tuple[Event, ...]
MOST = 12
"""Orders that are listed, the most frequent first."""
LONGEST = 24
"""Events of an order that are written out."""


def order_table(events: Sequence[tuple[int, int, Happened]]) -> Table | None:
    """List the orders that occurred, with how often and when; None without events."""
    if not events:
        return None
    steps: dict[int, Happened] = {}
    for step, _, happened in events:  # of all optimizers together
        steps[step] = steps[step] + happened if step in steps else happened
    words = {happened: order_text(happened) for happened in set(steps.values())}
    counts = Counter(words[happened] for happened in steps.values())
    first = {words[happened]: step for step, happened in reversed(steps.items())}
    last = {words[happened]: step for step, happened in steps.items()}
    rows = [
        (
            f"{place}",
            f"{count:,}",
            percent(count / len(steps)),
            f"{first[order]:,}",
            f"{last[order]:,}",
            order,
        )
        for place, (order, count) in enumerate(counts.most_common(MOST), 1)
    ]
    notes = [f"And {len(counts) - MOST:,} more that were rarer."] if len(counts) > MOST else []
    columns = ("order", "steps", "share", "first at", "last at", "what happened")
    return Table("What happened within a step, the most frequent order first", columns, rows, frozenset(range(1, 5)), notes)


def order_text(events: Iterable[Event]) -> str:
    """Write an order in one line; what is repeated is written once.

    >>> order_text([Event("backward"), Event("backward"), Event("clip", 0, "agc:0.01"), Event("step", 0)])
    '2 × backward → clip (agc:0.01) → step'
    """
    words = events_text(events)
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
