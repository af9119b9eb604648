"""Training without an optimizer: ``loss.backward()``, then the script changes its tensors by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from gradclip.watch.observe.unused_gradients import all_zero
from gradclip.watch.record.recorder import Measured
from gradclip.watch.record.stream import Stream

__all__ = ["ManualLoop", "leaves_of"]

SETTLED: Final = 3
"""After so many times the same leaves, the graph is searched only now and then."""
SEARCH_EVERY: Final = 50
MOST_WAITING: Final = 64
"""So many updates by hand, and no step of an optimizer that is there: it is not what trains."""
PAUSE: Final = 8
"""So many calls of ``backward`` after a step of an optimizer, nothing is looked for."""


class ManualLoop:
    """Tell the steps of a hand-written update apart: a step is over when its gradients were reset.

    Where there is an optimizer that may step, as for copies of the tensors (master weights, a net that several processes
    share), steps wait: they count once it has not stepped for a while, or at the end.

    Args:
        new_stream: makes the stream for the leaves that are found.
        measured: returns what was measured of a step that is over, from its stream and its gradient norms.
        record: takes a step that counts.
        is_owned: whether a leaf is the business of an optimizer; where any is, nothing is done by hand.
        any_optimizer: whether there is an optimizer.
    """

    def __init__(
        self,
        new_stream: Callable[[Sequence[Tensor]], Stream],
        measured: Callable[[Stream, Tensor], Measured],
        record: Callable[[Measured], None],
        is_owned: Callable[[Tensor], bool],
        any_optimizer: Callable[..., bool],
    ) -> None:
        self.stream: Stream | None = None
        self._new_stream, self._measured, self._record = new_stream, measured, record
        self._is_owned, self._any_optimizer = is_owned, any_optimizer
        self._active = self._counts = False
        self._searches = self._same = self._pause = 0
        self._pending: Tensor | None = None
        self._waiting: list[Measured] = []
        self._marks: list[tuple[int, int]] = []

    @property
    def under_way(self) -> bool:
        """Whether gradients wait for the script's update."""
        return self._pending is not None

    @property
    def certain(self) -> bool:
        """Whether gradients wait for the script's update, and no optimizer that it has made may be what trains."""
        return self.under_way and (self._counts or not self._any_optimizer(found=False))

    def optimizer_made(self) -> None:
        """What was updated before an optimizer exists is not its business, and what comes now may be: search again."""
        self.finish()
        self.release()
        self._same = 0

    def before_backward(self, tensor: Tensor) -> None:
        """Close the last step if its gradients were reset, and find the leaves that the next ones will be on."""
        if self._pause and self._any_optimizer():
            self._pause -= 1
            return
        self._searches += 1
        if self._same < SETTLED or self._searches % SEARCH_EVERY == 0:
            self._search(tensor)
        if self.under_way and (not self._active or self._was_reset()):
            self.finish()

    def after_backward(self) -> None:
        """Measure the gradients that have just appeared."""
        if self._active and self.stream is not None:
            self._pending = self.stream.grad_norms()
            self.mark()

    def mark(self) -> None:
        """Remember the gradients as they are: what happened to them so far (clipping) is no reset."""
        if self.stream is not None:
            self._marks = self.stream.marks()

    def finish(self) -> None:
        """The step that is under way is over."""
        if self.stream is None or self._pending is None:
            return
        pending, self._pending = self._pending, None
        self._waiting.append(self._measured(self.stream, pending))
        if self._counts or not self._any_optimizer() or len(self._waiting) >= MOST_WAITING:
            self._counts = True
            self.release()

    def release(self) -> None:
        """What waits counts."""
        waiting, self._waiting = self._waiting, []
        for measured in waiting:
            self._record(measured)

    def optimizer_stepped(self) -> list[Measured]:
        """An optimizer trains, so nothing was updated by hand; return the steps that do not count."""
        self._pause = PAUSE
        waiting, self._waiting = self._waiting, []
        if self.stream is not None:
            self.stream.step -= len(waiting)
            self._pending, self._active, self._counts = None, False, False
            self._same = 0
        return waiting

    def _search(self, tensor: Tensor) -> None:
        """Find the leaves; in ``w = (w - lr * w.grad).detach().requires_grad_()`` they are new each time."""
        leaves = leaves_of(tensor)
        self._active = bool(leaves) and not any(map(self._is_owned, leaves))
        known = not self._active or (self.stream is not None and all(map(self.stream.has, leaves)))
        self._same = self._same + 1 if known else 0
        if not self._active:
            return
        if self.stream is None:
            self.stream = self._new_stream(leaves)
        else:
            self.stream.adopt(leaves)

    def _was_reset(self) -> bool:
        """Whether the gradients are others than backward left, or zeros (``grad.data.zero_()`` leaves no mark)."""
        assert self.stream is not None
        return self.stream.marks() != self._marks or all_zero(self.stream)


def leaves_of(tensor: Tensor) -> list[Tensor]:
    """Return the leaves that ``tensor.backward()`` will give gradients to, in the order they are met.

    >>> a, b = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    >>> [leaf is a or leaf is b for leaf in leaves_of(a * b + a)]
    [True, True]
    """
    found: dict[int, Tensor] = {}
    waiting: list[Any] = [tensor.grad_fn]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, torch.Tensor):
            found[id(variable)] = variable
        waiting.extend(following for following, _ in node.next_functions)
    return list(found.values())
