"""Ranks tell each other what they are about to do, before the first of them does it.

What the ranks of a collective see differently (a method, a name, a shape, a placement, a mesh) would be a wrong number, a crash
or a rank that waits for ever. It is found when a method is laid out, and raised on every rank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch.distributed as dist

from gradclip.errors import TargetError

__all__ = ["agree", "everybody", "group_of"]

Said = TypeVar("Said")

_agreed: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
"""What the ranks of each process group have agreed on: a layout that is made anew each step asks once."""
_said: WeakKeyDictionary[Any, dict[str, list[Any]]] = WeakKeyDictionary()
"""What each rank of a process group said when this one said something."""


def agree(groups: Sequence[tuple[Any, object]], method: str, lines: Sequence[str]) -> None:
    """Have the ranks of some process groups find out whether they are about to do the same.

    Args:
        groups: process groups that all their ranks pass in the same order, each with what its ranks must also agree on.
        method: what is to be done with the tensors.
        lines: a line for each tensor.

    Raises:
        TargetError: they are not; on every rank of all groups.
    """
    digest = _digest((method, *lines))
    if all(_digest((digest, own)) in _agreed.get(group, ()) for group, own in groups):
        return
    problem = ""
    # There and back again, so that a rank hears of what is wrong in a group that it is not in.
    for group, own in (*groups, *reversed(groups[:-1])):
        problem = _compare(group, (digest, repr(own)), (method, *lines), problem)
    if problem:
        raise TargetError(problem)
    for group, own in groups:
        _agreed.setdefault(group, set()).add(_digest((digest, own)))


def everybody(group: Any, said: Said, rank_fits: Callable[[list[Said]], str] = lambda every: "") -> list[Said]:
    """Return what each rank of a process group says; asked once for each thing that this rank says.

    Raises:
        TargetError: what ``rank_fits`` finds wrong, on every rank.
    """
    known = _said.setdefault(group, {})
    key = _digest(said)
    if key not in known:
        every = _gathered(group, said)
        problem = rank_fits(every)
        if problem:
            raise TargetError(problem)
        known[key] = every
    return known[key]


def group_of(group: Any) -> Any:
    """Return the process group that a user passed, or that of a mesh of one dimension.

    Raises:
        TypeError: it is neither.
        TargetError: no process group was initialised, the mesh has several dimensions, or this rank is not in it.
    """
    if group is None:
        return None
    if not dist.is_initialized():
        raise TargetError("group= needs an initialised process group: call torch.distributed.init_process_group first")
    if hasattr(group, "get_group"):
        if group.ndim != 1:
            raise TargetError(f"group= takes a mesh of one dimension, not {group.ndim}: write mesh['name of the dimension']")
        if group.get_coordinate() is None:
            raise _stranger()
        return group.get_group()
    if group is dist.GroupMember.NON_GROUP_MEMBER or (isinstance(group, dist.ProcessGroup) and dist.get_rank(group) < 0):
        raise _stranger()
    if not isinstance(group, dist.ProcessGroup):
        raise TypeError(f"group= takes a ProcessGroup or a DeviceMesh of one dimension, not {type(group).__name__}")
    return group


def _stranger() -> TargetError:
    return TargetError(f"rank {dist.get_rank()} is not in the group that was passed: every rank passes the group that it is in")


def _compare(group: Any, mine: tuple[str, str], lines: Sequence[str], problem: str) -> str:
    """Return what is wrong with the ranks of one group, the same on each of them; what is known already comes first."""
    every = _gathered(group, (*mine, problem))
    known = next((said[2] for said in every if said[2]), "")
    if known:
        return known
    ranks = dist.get_process_group_ranks(group)
    other = next((i for i, said in enumerate(every) if said != every[0]), None)
    if other is None:
        return ""
    pair = f"ranks {ranks[0]} and {ranks[other]}"
    if every[other][0] == every[0][0]:
        return f"{pair} see their mesh differently: {every[0][1]} and {every[other][1]}; build it alike on all ranks"
    texts = _gathered(group, tuple(lines))
    first, second = texts[0], texts[other]
    if len(first) != len(second):
        return f"{pair} clip {len(first) - 1} and {len(second) - 1} tensors: pass the same parameters on every rank"
    a, b = next((a, b) for a, b in zip(first, second, strict=True) if a != b)
    return f"{pair} disagree: {a} and {b}; every rank must clip the same tensors in the same way"


def _gathered(group: Any, said: Said) -> list[Said]:
    every: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(every, said, group=group)
    return every


def _digest(said: object) -> str:
    return hashlib.sha256(repr(said).encode()).hexdigest()
