"""What the ranks of one group have: parts of the same tensors each, or the tensors of one pipeline stage each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gradclip.backends import Across, everybody
from gradclip.errors import listed
from gradclip.scopes import Entry

__all__ = ["on_all_ranks"]

_Had = tuple[str, tuple[tuple[Entry, torch.dtype], ...]]
"""What a rank says: the method, and what it knows of each tensor."""

_NUMBERED = re.compile(r"(group\d+\.)?\d+")
"""The names of parameters that have none."""


def on_all_ranks(
    group: Any, method: str, parameters: Sequence[Tensor], entries: Sequence[Entry]
) -> tuple[tuple[Tensor, ...], tuple[Entry, ...], Across]:
    """Return the tensors of all ranks of a group; those that are elsewhere are on the meta device, without memory.

    Where every rank has every name, plain tensors are parts, cut by hand. Otherwise the ranks are stages; a name on several of
    them is a copy (tied weights), which counts on the first.

    Raises:
        TargetError: on every rank: another method somewhere, or names that are neither.
    """
    mine = (method, tuple((entry, p.dtype) for entry, p in zip(entries, parameters, strict=True)))
    every = everybody(group, mine, _problem)
    if _alike(every):
        each = zip(*(had for _, had in every), strict=True)
        sizes = tuple(sum(prod(entry.shape) for entry, _ in ranks) for ranks in each)
        return tuple(parameters), tuple(entries), Across(group, sizes)
    own = {entry.name: (p, entry) for entry, p in zip(entries, parameters, strict=True)}
    rank = dist.get_rank(group)
    found: dict[str, tuple[int, Entry, torch.dtype]] = {}
    for number, (_, had) in enumerate(every):
        for entry, dtype in had:
            found.setdefault(entry.name, (number, entry, dtype))
    tensors = [
        own[name][0] if name in own else torch.empty(e.shape, dtype=d, device="meta") for name, (_, e, d) in found.items()
    ]
    sizes = tuple(prod(entry.shape) for _, entry, _ in found.values())
    counted = tuple(number == rank for number, _, _ in found.values())
    return tuple(tensors), tuple(entry for _, entry, _ in found.values()), Across(group, sizes, True, counted)


def _alike(every: Sequence[_Had]) -> bool:
    """Every rank has every name."""
    return len({frozenset(entry.name for entry, _ in had) for _, had in every}) == 1


def _problem(every: Sequence[_Had]) -> str:
    """Return what is wrong with what the ranks of a group have, if anything."""
    methods = {method for method, _ in every}
    if len(methods) > 1:
        return f"the ranks of the group clip by {listed(sorted(methods))}: use one method on all of them"
    names = [[entry.name for entry, _ in had] for _, had in every]
    if _alike(every):
        if any(own != names[0] for own in names):
            return "the ranks of the group pass the same tensors in different orders: pass them in one order"
        return ""
    counts = Counter(name for own in names for name in own)
    unnamed = [name for name in counts if _NUMBERED.fullmatch(name)]
    if unnamed:
        return (
            f"the ranks of the group pass {', '.join(str(len(own)) for own in names)} parameters without names: for pipeline "
            "stages pass the model or named parameters; of parts of tensors every rank passes all, an empty one where it has "
            "nothing"
        )
    shapes: dict[str, tuple[int, ...]] = {}
    for _, had in every:
        for entry, _ in had:
            if shapes.setdefault(entry.name, entry.shape) != entry.shape:
                return (
                    f"{entry.name!r} has the shapes {shapes[entry.name]} and {entry.shape} on two ranks of the group, which do "
                    "not all have the same names: copies on several stages have one shape; of parts every rank passes all, an "
                    "empty one where it has nothing"
                )
    return ""
