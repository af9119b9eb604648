"""Several rules at once."""

from __future__ import annotations

from dataclasses import dataclass

from gradclip._arrays import Array, namespace
from gradclip.arguments import set_fields
from gradclip.thresholds.rule import Context, State, Threshold, joined, part_of

__all__ = ["Minimum"]

_ANY = ("needs_weights", "needs_lr", "stateful", "couples")


@dataclass(frozen=True, init=False)
class Minimum(Threshold):
    """The smallest of several limits; each rule keeps its own state, under its place among them (``0.mean``, ``1.window``).

    Raises:
        TypeError: one of them is no rule.
        ValueError: there is none.

    >>> from gradclip.thresholds import Constant, Relative
    >>> Minimum(Constant(1.0), Relative(0.1)).needs_weights
    True
    """

    rules: tuple[Threshold, ...]

    def __init__(self, *rules: Threshold) -> None:
        for rule in rules:
            if not isinstance(rule, Threshold):
                raise TypeError(f"the smallest of several thresholds is asked for, not of {type(rule).__name__} ({rule!r})")
        if not rules:
            raise ValueError("the smallest of no thresholds is none: write at least one")
        set_fields(self, rules=rules, **{fact: any(getattr(rule, fact) for rule in rules) for fact in _ANY})

    def __repr__(self) -> str:
        return f"Minimum({', '.join(map(repr, self.rules))})"

    def init(self, norms: Array) -> State:
        return joined([rule.init(norms) for rule in self.rules])

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        smallest: Array = xp.ones_like(norms) * xp.inf
        kept: list[State] = []
        for i, rule in enumerate(self.rules):
            limit, after = rule.limits(norms, part_of(state, i), context)
            smallest = xp.minimum(smallest, limit * xp.ones_like(norms))
            kept.append(after)
        return smallest, joined(kept)
