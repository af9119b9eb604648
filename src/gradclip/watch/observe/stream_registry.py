"""The streams of a run: one for each optimizer, and one for what is updated by hand."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradclip.watch.record.stream import Stream

__all__ = ["StreamRegistry"]


class StreamRegistry:
    """Find an optimizer's stream; optimizers are held weakly.

    Args:
        only: the optimizers that are watched; all if there are none.
        names: names of parameters that are known already, by identity.
    """

    def __init__(self, only: Sequence[torch.optim.Optimizer] = (), names: Mapping[int, str] | None = None) -> None:
        self._only, self._names = weakref.WeakSet(only), names
        self._limited = bool(only)
        self._streams: weakref.WeakKeyDictionary[torch.optim.Optimizer, Stream] = weakref.WeakKeyDictionary()
        self._numbers: weakref.WeakKeyDictionary[torch.optim.Optimizer, int | None] = weakref.WeakKeyDictionary()
        self._hand: Stream | None = None
        self._count = 0
        for optimizer in only:
            self.number(optimizer)

    def number(self, optimizer: torch.optim.Optimizer) -> int:
        """Return an optimizer's number; they are numbered in the order in which they were made."""
        number = self._numbers.get(optimizer)
        if number is None:
            number = self._numbers[optimizer] = self._count
            self._count += 1
        return number

    def find(self, optimizer: torch.optim.Optimizer) -> None:
        """Note an optimizer that was there before the watching; it gets its number when it is used."""
        self._numbers.setdefault(optimizer, None)

    def of(self, optimizer: torch.optim.Optimizer, current: bool = False) -> Stream | None:
        """Return an optimizer's stream, None where it is not watched.

        Args:
            optimizer: any.
            current: look at each of its parameters, not only at how many they are.
        """
        if self._limited and optimizer not in self._only:
            return None
        stream = self._streams.get(optimizer)
        if stream is None:
            stream = self._streams[optimizer] = Stream(self.number(optimizer), (), optimizer, self._names)
        if current or sum(len(group["params"]) for group in optimizer.param_groups) != stream.listed:
            stream.follow([p for group in optimizer.param_groups for p in group["params"]])
        return stream

    def by_hand(self, leaves: Sequence[Tensor]) -> Stream:
        """Return a new stream for tensors that are updated without an optimizer."""
        self._hand = Stream(self._count, leaves, None, self._names)
        self._count += 1
        return self._hand

    def all(self) -> list[Stream]:
        """Return all streams, those of optimizers that have not stepped yet included."""
        streams = [self.of(optimizer) for optimizer, number in list(self._numbers.items()) if number is not None]
        return [stream for stream in [*streams, self._hand] if stream is not None]

    def holding(self, parameters: Sequence[Tensor]) -> list[Stream]:
        """Return the streams that have any of these parameters."""
        for optimizer in [one for one, number in self._numbers.items() if number is None]:
            if _owns(optimizer, parameters):
                self.number(optimizer)
        return [stream for stream in self.all() if any(map(stream.has, parameters))]

    def is_owned(self, leaf: Tensor) -> bool:
        """Whether an optimizer has this parameter."""
        return any(_owns(one, [leaf]) or _gathered(one, leaf) for one in list(self._numbers))


def _gathered(optimizer: torch.optim.Optimizer, leaf: Tensor) -> bool:
    """Whether a leaf is what FSDP has gathered of an optimizer's shards, which get its gradient when ``backward`` is over."""
    shards = (p for group in optimizer.param_groups for p in group["params"] if hasattr(p, "device_mesh"))
    return getattr(leaf, "_is_flat_param", False) or any(p is not leaf and p.shape == leaf.shape for p in shards)


def _owns(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> bool:
    wanted = set(map(id, parameters))
    return any(id(p) in wanted for group in optimizer.param_groups for p in group["params"])
