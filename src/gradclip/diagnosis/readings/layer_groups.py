"""Fewer rows for many tensors: tensors of one module stand together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["MOST_GROUPS", "Group", "common_prefix", "groups_of"]

MOST_GROUPS = 60
"""More rows than this cannot be told apart on a page."""

FEW = 4
"""Modules that leave more than this many times the room unused are too coarse; one level deeper is merged into bands."""


@dataclass(frozen=True)
class Group:
    """Some tensors that are shown as one."""

    name: str
    members: tuple[int, ...]
    """The places of its tensors."""


def groups_of(names: Sequence[str], most: int = MOST_GROUPS) -> tuple[Group, ...]:
    """Group tensors by the modules that their dotted names tell, so that at most ``most`` groups remain, in model order.

    The modules are as small as they can be. Where modules of one level are too many and those above too few, neighbours are
    merged into bands of equal length.

    >>> [group.name for group in groups_of(["a.weight", "a.bias", "b.0.weight", "b.1.weight"], most=2)]
    ['a', 'b']
    >>> [group.name for group in groups_of([f"layers.{i}.weight" for i in range(8)], most=4)]
    ['layers.0 … 1', 'layers.2 … 3', 'layers.4 … 5', 'layers.6 … 7']
    """
    if len(names) <= most:
        return tuple(Group(name, (i,)) for i, name in enumerate(names))
    deepest = max(name.count(".") for name in names) + 1
    levels = [_level(names, depth) for depth in range(1, deepest + 1)]
    small = [groups for groups in levels if len(groups) <= most]
    if small and len(small[-1]) * FEW > most:
        return small[-1]
    finer = next((groups for groups in levels if len(groups) > most), None)
    if finer is None:
        finer = tuple(Group(name, (i,)) for i, name in enumerate(names))
    return _bands(finer, most)


def common_prefix(names: Sequence[str]) -> str:
    """Return the modules that all names begin with, up to and with the last dot.

    >>> common_prefix(["model.layers.1.weight", "model.layers.12.weight"]), common_prefix(["weight", "bias"])
    ('model.layers.', '')
    """
    if len(names) < 2:
        return ""
    first, last = min(names), max(names)  # what these two share, all share
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: first.rfind(".", 0, same) + 1]


def _level(names: Sequence[str], depth: int) -> tuple[Group, ...]:
    members: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        members.setdefault(".".join(name.split(".")[:depth]), []).append(i)
    return tuple(Group(name, tuple(places)) for name, places in members.items())


def _bands(groups: Sequence[Group], most: int) -> tuple[Group, ...]:
    length = -(-len(groups) // most)
    return tuple(_merged(groups[i : i + length]) for i in range(0, len(groups), length))


def _merged(groups: Sequence[Group]) -> Group:
    if len(groups) == 1:
        return groups[0]
    first, last = groups[0].name, groups[-1].name
    return Group(
        f"{first} … {last.removeprefix(common_prefix([first, last]))}",
        tuple(place for group in groups for place in group.members),
    )
