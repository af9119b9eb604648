"""The streams of a run: one for each optimizer, and one for what is updated by hand."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradclip._inner_optimizer import outer_to_inner
from gradclip.watch.record.stream import Stream, parameters_of

__all__ = ["StreamRegistry"]


class StreamRegistry:
    """Find an optimizer's stream; optimizers are held weakly. A wrapper and the optimizer inside it have one together.

    Args:
        only: the optimizers that are watched; all if there are none.
        names: names of parameters that are known already, by identity.
    """

    def __init__(self, only: Sequence[torch.optim.Optimizer] = (), names: Mapping[int, str] | None = None) -> None:
        self._only, self._names = weakref.WeakSet(only), names
        self._limited = bool(only)
        self._streams: weakref.WeakKeyDictionary[torch.optim.Optimizer, Stream] = weakref.WeakKeyDictionary()
        self._numbers: weakref.WeakKeyDictionary[torch.optim.Optimizer, int] = weakref.WeakKeyDictionary()
        self._found = weakref.WeakSet[torch.optim.Optimizer]()
        self._without_stream = weakref.WeakSet[torch.optim.Optimizer]()
        self._in_backward: Stream | None = None
        self._all: list[Stream] = []
        self._last: Stream | None = None
        self._count = 0
        for optimizer in only:
            self.number(optimizer)

    def number(self, optimizer: torch.optim.Optimizer) -> int:
        """Return an optimizer's number; they are numbered in the order in which they were made."""
        number = self._numbers.get(optimizer)
        if number is None:
            number = self._numbers[optimizer] = self._count
            self._count += 1
            self._without_stream.add(optimizer)
            self._found.discard(optimizer)
        return number

    def find(self, optimizer: torch.optim.Optimizer) -> None:
        """Note an optimizer that was there before the watching; it gets its number when it is used."""
        if optimizer not in self._numbers:
            self._found.add(optimizer)

    def of(self, optimizer: torch.optim.Optimizer) -> Stream | None:
        """Return an optimizer's stream, None where it is not watched."""
        last = self._last
        if last is not None and last.steps_alone(optimizer):
            return last
        stream = self._streams.get(optimizer)
        if stream is None:
            if self._limited and optimizer not in self._only:
                return None
            stream = self._of_innermost(optimizer)
        self._last = stream
        return stream

    def stepped_in_backward(self, optimizer: torch.optim.Optimizer) -> Stream | None:
        """Return the stream of an optimizer that steps inside ``backward``: all that do, and do nothing else, have one."""
        stream = self._streams.get(optimizer)
        if stream is None or (stream.step == 0 and not stream.in_backward):
            if self._limited and optimizer not in self._only:
                return None
            together = self._in_backward
            if together is None or not together.optimizers:
                together = self._in_backward = stream or self._of_innermost(optimizer)
                together.in_backward = True
            else:
                together.join(optimizer)
                self._put(optimizer, together)
                self._all = [one for one in self._all if one is not stream]
                self._last = None
            stream = together
            stream.adopt(parameters_of(optimizer))
        return stream

    def join(self, optimizer: torch.optim.Optimizer, outer: Stream) -> None:
        """The steps of this optimizer are parts of the steps of another."""
        own = self._streams.get(optimizer)
        self._put(optimizer, outer)
        self._all = [one for one in self._all if one is not own]
        self._last = None

    def by_hand(self, leaves: Sequence[Tensor]) -> Stream:
        """Return a new stream for tensors that are updated without an optimizer."""
        self._count += 1
        return Stream(self._count - 1, leaves, None, self._names)

    def drop(self, stream: Stream) -> None:
        """Nothing was updated by hand: the number is free, if no other was given since."""
        self._count -= stream.number == self._count - 1

    def all(self) -> list[Stream]:
        """Return all streams, those of optimizers that have not stepped yet included."""
        while self._without_stream:
            self._of_innermost(self._without_stream.pop())
        return self._all

    def holding(self, parameters: Sequence[Tensor]) -> list[Stream]:
        """Return the streams that have any of these parameters, in the order of their numbers."""
        for optimizer in [one for one in self._found if _owns(one, parameters)] if self._found else ():
            self.number(optimizer)
        streams = self.all()
        for stream in streams:
            stream.follow_optimizer()
        found = [stream for stream in streams if any(map(stream.has, parameters))]
        return sorted(found, key=lambda one: one.number) if len(found) > 1 else found

    def is_owned(self, leaf: Tensor) -> bool:
        """Whether an optimizer has this parameter."""
        optimizers = [*self._numbers, *self._found]
        return any(_owns(one, [leaf]) or _gathered(one, leaf) for one in optimizers)

    def any_optimizer(self, found: bool = True) -> bool:
        """Whether there is an optimizer, which may step before long; those that were ``found`` may belong to something else."""
        return bool(self._numbers) or (found and bool(self._found))

    def _of_innermost(self, optimizer: torch.optim.Optimizer) -> Stream:
        """Return the stream of an optimizer, made if there is none: of a wrapper, that of the optimizer inside it."""
        inner = outer_to_inner(optimizer)[-1]
        number = min(self.number(optimizer), self.number(inner))
        stream = self._streams.get(inner)
        if stream is None:
            stream = Stream(number, parameters_of(inner), inner, self._names)
            self._all = [*(one for one in self._all if one.optimizers), stream]
        for one in {id(one): one for one in (inner, optimizer)}.values():
            self._put(one, stream)
        return stream

    def _put(self, optimizer: torch.optim.Optimizer, stream: Stream) -> None:
        self._streams[optimizer] = stream
        self._without_stream.discard(optimizer)


def _gathered(optimizer: torch.optim.Optimizer, leaf: Tensor) -> bool:
    """Whether a leaf is what FSDP has gathered of an optimizer's shards, which get its gradient when ``backward`` is over."""
    shards = (p for p in parameters_of(optimizer) if hasattr(p, "device_mesh"))
    return getattr(leaf, "_is_flat_param", False) or any(p is not leaf and p.shape == leaf.shape for p in shards)


def _owns(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> bool:
    wanted = set(map(id, parameters))
    return any(id(p) in wanted for p in parameters_of(optimizer))
