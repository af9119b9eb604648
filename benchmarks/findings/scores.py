"""Count what the checks found against what is known of the scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.findings.running import Outcome

__all__ = ["ByFinding", "Share", "Totals", "by_finding", "parts", "totals", "untrue", "verdict"]

ALARMS = ("error", "warning")


@dataclass(frozen=True)
class Share:
    """So many of so many.

    >>> print(Share(3, 4))
    3 of 4 (75 %)
    """

    hits: int
    of: int

    def __str__(self) -> str:
        return f"{self.hits} of {self.of}" + (f" ({self.hits / self.of:.0%})".replace("%", " %") if self.of else "")


@dataclass(frozen=True)
class Totals:
    """The numbers of a part of the suite."""

    named: Share
    """Sick scripts whose fault is among the findings: the recall."""
    leading: Share
    """Sick scripts with a finding whose first one names the fault: the precision of what leads."""
    leading_true: Share
    """The same, where a companion that is true of the script may lead as well."""
    untrue: Share
    """Sick scripts with a warning or error that is neither their fault nor a companion of it."""
    false_alarms: Share
    """Healthy scripts with a warning or an error."""
    noted: Share
    """Healthy scripts with nothing but notes."""
    broken: int
    """Scripts that did not end well; they count as missed, or as quiet."""


@dataclass(frozen=True)
class ByFinding:
    """One finding's part: of the sick scripts that have it as their first expectation, and of the healthy ones."""

    name: str
    named: Share
    leading: int
    false_alarms: int
    noted: int


def verdict(outcome: Outcome) -> str:
    """Say in a word what the checks made of a script."""
    if outcome.error:
        return "broken"
    if outcome.script.sick:
        return ("leads" if _leads(outcome) else "named") if _named(outcome) else "missed"
    return "false alarm" if _alarms(outcome) else "noted" if outcome.found else "quiet"


def untrue(outcome: Outcome) -> tuple[str, ...]:
    """Return the warnings and errors that are not true of a script."""
    true = {*outcome.script.expects, *outcome.script.also_fine}
    return tuple(dict.fromkeys(name for name in _alarms(outcome) if name not in true))


def parts(outcomes: Sequence[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """Return the scripts that the rules were tuned on, and those they never saw: no number may mix them."""
    seen = [outcome for outcome in outcomes if not outcome.script.unseen]
    return seen, [outcome for outcome in outcomes if outcome.script.unseen]


def totals(outcomes: Sequence[Outcome]) -> Totals:
    """Count over a part of the suite."""
    sick = [outcome for outcome in outcomes if outcome.script.sick]
    healthy = [outcome for outcome in outcomes if not outcome.script.sick]
    told = [outcome for outcome in sick if outcome.found]
    return Totals(
        named=_share(map(_named, sick)),
        leading=_share(map(_leads, told)),
        leading_true=_share(outcome.found[0].name in (*outcome.script.expects, *outcome.script.also_fine) for outcome in told),
        untrue=_share(bool(untrue(outcome)) for outcome in sick),
        false_alarms=_share(bool(_alarms(outcome)) for outcome in healthy),
        noted=_share(verdict(outcome) == "noted" for outcome in healthy),
        broken=sum(bool(outcome.error) for outcome in outcomes),
    )


def by_finding(outcomes: Sequence[Outcome], names: Sequence[str]) -> list[ByFinding]:
    """Count for each finding on its own."""
    healthy = [outcome for outcome in outcomes if not outcome.script.sick]
    rows = []
    for name in names:
        own = [outcome for outcome in outcomes if outcome.script.expects[:1] == (name,)]
        alarms = sum(name in _alarms(outcome) for outcome in healthy)
        told = sum(any(one.name == name for one in outcome.found) for outcome in healthy)
        rows.append(ByFinding(name, _share(map(_named, own)), sum(map(_leads, own)), alarms, told - alarms))
    return rows


def _named(outcome: Outcome) -> bool:
    return any(one.name in outcome.script.expects for one in outcome.found)


def _leads(outcome: Outcome) -> bool:
    return bool(outcome.found) and outcome.found[0].name in outcome.script.expects


def _alarms(outcome: Outcome) -> list[str]:
    return [one.name for one in outcome.found if one.severity in ALARMS]


def _share(hits: Iterable[bool]) -> Share:
    counted = list(hits)
    return Share(sum(counted), len(counted))
