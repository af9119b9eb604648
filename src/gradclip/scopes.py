"""The scope axis: what is measured together?

A scope cuts the tensors of a model into blocks. It sees only what a :class:`Entry` tells of a tensor, so it knows no
framework. A *cell* is the smallest piece a backend measures (a tensor, or one output unit of it); a block is one or
more cells whose norms are combined.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate
from itertools import accumulate
from math import prod
from typing import ClassVar, TypeAlias

from gradclip._cached import cached_property
from gradclip.arguments import number, set_fields
from gradclip.errors import TargetError

__all__ = ["Entry", "Global", "Partition", "Patterns", "PerElement", "PerGroup", "PerTensor", "PerUnit", "Scope"]

Patterns: TypeAlias = str | Sequence[str]
"""Name patterns with ``*`` and ``?``: one word, or several; kept as a tuple."""


@dataclass(frozen=True)
class Entry:
    """What a scope may know of one tensor: its name, shape, optimizer group, and where its output units lie.

    ``unit_axis`` is the axis that counts output units; a grouped transposed convolution splits the axis before
    it into ``unit_groups`` runs, each with units of its own.
    """

    name: str
    shape: tuple[int, ...]
    group: int | None = None
    unit_axis: int = 0
    unit_groups: int = 1

    def unit_view(self, axis: int | None = None) -> tuple[int, int, int, int]:
        """Return the shape (groups, before, units, after) in which axes 1 and 3 belong to a unit.

        >>> Entry("conv", (8, 4, 3, 3)).unit_view(), Entry("bias", (8,)).unit_view()
        ((1, 1, 8, 36), (1, 1, 1, 8))
        >>> Entry("conv_transpose", (4, 8, 3, 3), unit_axis=1).unit_view()
        (1, 4, 8, 9)
        """
        shape = self.shape
        if len(shape) <= 1:  # a bias or a gain has no units of its own: it is one (Brock et al. 2021)
            return (1, 1, 1, prod(shape))
        at = self.unit_axis if axis is None else axis % len(shape)
        groups = self.unit_groups if axis is None else 1
        return (groups, prod(shape[:at]) // groups, shape[at], prod(shape[at + 1 :]))


@dataclass(frozen=True)
class Partition:
    """Where each tensor's cells go: ``first[i]`` is the block of tensor i's first cell (None: left out)."""

    first: tuple[int | None, ...]
    cells: tuple[int, ...]
    count: int
    views: tuple[tuple[int, int, int, int], ...] | None = None
    names: tuple[str, ...] = ()

    @cached_property
    def complete(self) -> bool:
        """No tensor is left out."""
        return None not in self.first

    @cached_property
    def identity(self) -> bool:
        """Cell j is block j, so that nothing has to be combined."""
        return self.count == sum(self.cells) and self.first == tuple(accumulate(self.cells, initial=0))[:-1]


@dataclass(frozen=True)
class Scope(ABC):
    """Cut tensors into blocks; names that match a pattern in ``exclude`` (``*`` and ``?``) are left as they are."""

    exclude: Patterns = ()
    spans_tensors: ClassVar[bool] = False
    """A block may hold several tensors, so its norm is known only when all of them are measured."""
    splits_tensors: ClassVar[bool] = False
    """A tensor may hold several blocks, so it is not multiplied by one number."""
    per_element: ClassVar[bool] = False
    """Every element is a block, so that the norm is its absolute value."""

    def __post_init__(self) -> None:
        set_fields(self, exclude=_patterns(self.exclude))

    @property
    def per_tensor(self) -> bool:
        """Every tensor is one block."""
        return not self.spans_tensors and not self.splits_tensors

    def partition(self, entries: Sequence[Entry]) -> Partition:
        """Return the block of every tensor.

        Raises:
            TargetError: the scope needs names or groups that the tensors do not have, or a pattern matches nothing.
        """
        for pattern in self.exclude:
            if not any(_matches(entry.name, pattern) for entry in entries):
                raise TargetError(f"exclude pattern {pattern!r} matches no parameter: {_known(entries)}")
        included = [not any(_matches(e.name, p) for p in self.exclude) for e in entries]
        return self._cut(entries, included)

    @abstractmethod
    def _cut(self, entries: Sequence[Entry], included: Sequence[bool]) -> Partition: ...


@dataclass(frozen=True)
class Global(Scope):
    """Everything is one block."""

    spans_tensors: ClassVar[bool] = True

    def _cut(self, entries: Sequence[Entry], included: Sequence[bool]) -> Partition:
        return Partition(tuple(0 if i else None for i in included), (1,) * len(entries), 1, names=("whole",))


@dataclass(frozen=True)
class PerGroup(Scope):
    """One block a group: the optimizer's param groups, or the first of ``patterns`` that matches a parameter's name."""

    patterns: Patterns = ()
    spans_tensors: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        set_fields(self, patterns=_patterns(self.patterns))

    def _cut(self, entries: Sequence[Entry], included: Sequence[bool]) -> Partition:
        blocks = [self._block(e) if i else None for e, i in zip(entries, included, strict=True)]
        count = len(self.patterns) or 1 + max((b for b in blocks if b is not None), default=-1)
        names = tuple(self.patterns) or tuple(f"group {i}" for i in range(count))
        return Partition(tuple(blocks), (1,) * len(entries), count, names=names)

    def _block(self, entry: Entry) -> int:
        if not self.patterns:
            if entry.group is None:
                raise TargetError(
                    "group_norm without patterns goes by the optimizer's param groups: pass the optimizer, "
                    'or name the groups: group_norm({"encoder.*": 1.0, "*": 0.5})'
                )
            return entry.group
        for block, pattern in enumerate(self.patterns):
            if _matches(entry.name, pattern):
                return block
        raise TargetError(
            f"parameter {entry.name!r} is in none of the groups {', '.join(map(repr, self.patterns))}: "
            'add one for it, "*" for all that is left (with threshold inf to leave it unclipped)'
        )


@dataclass(frozen=True)
class PerTensor(Scope):
    """Every tensor is a block of its own."""

    def _cut(self, entries: Sequence[Entry], included: Sequence[bool]) -> Partition:
        names = tuple(e.name for e, i in zip(entries, included, strict=True) if i)
        return _numbered((1,) * len(entries), included, names=names)


@dataclass(frozen=True)
class PerUnit(Scope):
    """Every output unit (a row of a linear layer, a filter of a convolution) is a block; a vector is one unit.

    ``axis`` says which axis counts the units, for every tensor with two or more; by default it is what the layer says
    (0 as in PyTorch's linear and convolution weights, 1 in transposed convolutions). Keras and Flax layouts are -1.
    """

    axis: int | None = None
    splits_tensors: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.axis is not None:
            if isinstance(self.axis, bool) or not number(self.axis, "the unit axis").is_integer():
                raise ValueError(f"the unit axis is a whole number, not {self.axis}")
            set_fields(self, axis=int(self.axis))

    def _cut(self, entries: Sequence[Entry], included: Sequence[bool]) -> Partition:
        for entry in entries:
            rank = len(entry.shape)
            if self.axis is not None and rank > 1 and not -rank <= self.axis < rank:
                raise TargetError(f"unit axis {self.axis} does not exist in {entry.name!r} of shape {entry.shape}")
        views = tuple(entry.unit_view(self.axis) for entry in entries)
        return _numbered(tuple(v[0] * v[2] for v in views), included, views=views)


@dataclass(frozen=True)
class PerElement(Scope):
    """Every element is a block; its norm is its absolute value."""

    splits_tensors: ClassVar[bool] = True
    per_element: ClassVar[bool] = True

    def _cut(self, entries: Sequence[Entry], included: Sequence[bool]) -> Partition:
        return _numbered(tuple(prod(e.shape) for e in entries), included)


def _patterns(patterns: Patterns) -> tuple[str, ...]:
    """Return name patterns as a tuple; one word is one pattern."""
    found = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    for pattern in found:
        if not isinstance(pattern, str) or not pattern:
            raise TypeError(f"a name pattern is a word such as 'head.*', not {pattern!r}")
        _matches("", pattern)
    return found


_compiled: dict[str, re.Pattern[str]] = {}
"""Of every pattern that was used, since ``fnmatch`` is nothing that ``torch.compile`` can trace."""


def _matches(name: str, pattern: str) -> bool:
    if pattern not in _compiled:
        _compiled[pattern] = re.compile(translate(pattern))
    return _compiled[pattern].match(name) is not None


def _numbered(
    cells: tuple[int, ...],
    included: Sequence[bool],
    views: tuple[tuple[int, int, int, int], ...] | None = None,
    names: tuple[str, ...] = (),
) -> Partition:
    """Give every included cell a block of its own, in order."""
    first: list[int | None] = []
    count = 0
    for size, inside in zip(cells, included, strict=True):
        first.append(count if inside else None)
        count += size if inside else 0
    return Partition(tuple(first), cells, count, views=views, names=names)


def _known(entries: Sequence[Entry]) -> str:
    names = [entry.name for entry in entries]
    return f"the names are {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
