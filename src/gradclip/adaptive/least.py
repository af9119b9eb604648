"""Two rules at once."""

from __future__ import annotations

from dataclasses import dataclass

from gradclip._arrays import Array, namespace
from gradclip.thresholds import Context, State, Threshold

__all__ = ["Least"]


@dataclass(frozen=True)
class Least(Threshold):
    """The smaller of two limits; each rule keeps its own state."""

    first: Threshold
    second: Threshold

    def __post_init__(self) -> None:
        for rule in (self.first, self.second):
            if not isinstance(rule, Threshold):
                raise TypeError(f"the smaller of two thresholds is asked for, not of {type(rule).__name__}")

    @property
    def needs_weights(self) -> bool:  # type: ignore[override]
        """One of them reads the weights."""
        return self.first.needs_weights or self.second.needs_weights

    @property
    def needs_lr(self) -> bool:  # type: ignore[override]
        """One of them reads the learning rate."""
        return self.first.needs_lr or self.second.needs_lr

    @property
    def stateful(self) -> bool:  # type: ignore[override]
        """One of them keeps a history."""
        return self.first.stateful or self.second.stateful

    @property
    def couples(self) -> bool:  # type: ignore[override]
        """One of them looks at other blocks."""
        return self.first.couples or self.second.couples

    def init(self, norms: Array) -> State:
        return {f"{name}.{key}": value for name, rule in self._rules() for key, value in rule.init(norms).items()}

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        smallest: Array = xp.ones_like(norms) * xp.inf
        following: dict[str, Array] = {}
        for name, rule in self._rules():
            own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            limit, kept = rule.limits(norms, own, context)
            smallest = xp.where(smallest < limit, smallest, limit * xp.ones_like(norms))
            following |= {f"{name}.{key}": value for key, value in kept.items()}
        return smallest, following

    def _rules(self) -> tuple[tuple[str, Threshold], tuple[str, Threshold]]:
        return ("first", self.first), ("second", self.second)
