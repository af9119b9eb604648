"""A threshold's state, kept tensor by tensor: what a rule has learnt, where every tensor is decided by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradclip.backends.torch_norms import norm_dtype
from gradclip.thresholds import Threshold
from gradclip.torch.deciding import State

__all__ = ["Histories"]


class Histories:
    """The part of a rule's state that belongs to each tensor, and the part (a count of steps) that belongs to none.

    Args:
        threshold: the rule.
        sizes: how many blocks each tensor has.
        devices: where the norms of each tensor are.
    """

    def __init__(self, threshold: Threshold, sizes: Sequence[int], devices: Sequence[torch.device]) -> None:
        self._threshold, self._sizes, self._devices = threshold, sizes, devices
        self._axes = _block_axes(threshold)
        self._own: list[State | None] = [None] * len(sizes)
        self._shared: State = {}
        self._shared_next: State = {}

    def of(self, i: int) -> State:
        """Return the state that tensor i is decided with."""
        own = self._own[i]
        start = self._start(i) if own is None else own
        return {**start, **{key: value.to(self._devices[i]) for key, value in self._shared.items()}}

    def keep(self, i: int, state: State) -> None:
        """Take in the state that tensor i left; what all tensors share moves on when the step ends."""
        if not self._sizes[i] or not state:
            return
        self._own[i] = {key: value for key, value in state.items() if self._axes[key] is not None}
        self._shared_next = {key: value for key, value in state.items() if self._axes[key] is None}

    def end_step(self) -> None:
        """Let what all tensors share move on, once, however many of them had a gradient."""
        self._shared, self._shared_next = self._shared_next or self._shared, {}

    def joined(self) -> State:
        """Return the state as a rule over all tensors together has it; empty before the first step."""
        if not self._shared and all(own is None for own in self._own):
            return {}
        states = [self.of(i) for i, size in enumerate(self._sizes) if size]
        return {key: self._join(key, axis, states) for key, axis in self._axes.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Cut the state of all tensors together into copies for each."""
        self._shared = {key: value.clone() for key, value in state.items() if self._axes[key] is None}
        parts = {key: value.split(list(self._sizes), dim=self._axes[key] or 0)
                 for key, value in state.items() if self._axes[key] is not None}  # fmt: skip
        self._own = [
            {key: each[i].to(device, copy=True) for key, each in parts.items()} if state and self._sizes[i] else None
            for i, device in enumerate(self._devices)
        ]

    def _start(self, i: int) -> State:
        device = self._devices[i]
        return self._threshold.init(torch.zeros(self._sizes[i], dtype=norm_dtype(device), device=device))

    def _join(self, key: str, axis: int | None, states: Sequence[State]) -> Tensor:
        first = states[0][key]
        return first.clone() if axis is None else torch.cat([state[key].to(first) for state in states], dim=axis)


def _block_axes(threshold: Threshold) -> dict[str, int | None]:
    """Return for each array of a rule's state the axis that counts blocks; None where all blocks share it."""
    one, two = (threshold.init(torch.zeros(count, dtype=torch.float64)) for count in (1, 2))
    return {
        key: next((axis for axis, size in enumerate(value.shape) if size != two[key].shape[axis]), None)
        for key, value in one.items()
    }
