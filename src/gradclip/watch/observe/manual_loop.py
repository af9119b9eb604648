"""Training without an optimizer: ``loss.backward()``, then the script changes its tensors by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradclip.watch.record.stream import Stream

__all__ = ["ManualLoop", "leaves_of"]

SETTLED = 3
"""After so many times the same leaves, the graph is searched only now and then."""
SEARCH_EVERY = 50


class ManualLoop:
    """Tell the steps of a hand-written update apart: a step is over when its gradients were reset.

    Args:
        new_stream: makes the stream for the leaves that are found.
        finish: is given the stream and the gradient norms of each step that is over.
        is_owned: whether a leaf is the business of an optimizer; where any is, nothing is done by hand.
    """

    def __init__(
        self,
        new_stream: Callable[[Sequence[Tensor]], Stream],
        finish: Callable[[Stream, Tensor], None],
        is_owned: Callable[[Tensor], bool],
    ) -> None:
        self.stream: Stream | None = None
        self._new_stream, self._finish, self._is_owned = new_stream, finish, is_owned
        self._active = False
        self._searches = self._same = 0
        self._pending: Tensor | None = None
        self._marks: list[tuple[int, int]] = []

    @property
    def under_way(self) -> bool:
        """Whether gradients wait for the script's update."""
        return self._pending is not None

    def search_again(self) -> None:
        """Something has changed: search at the next ``backward``."""
        self._same = 0

    def before_backward(self, tensor: Tensor) -> None:
        """Close the last step if its gradients were reset, and find the leaves that the next ones will be on."""
        self._searches += 1
        if self._same < SETTLED or self._searches % SEARCH_EVERY == 0:
            self._search(tensor)
        if self.under_way and (not self._active or self._was_reset()):
            self.close()

    def after_backward(self) -> None:
        """Measure the gradients that have just appeared."""
        if self._active and self.stream is not None:
            self._pending = self.stream.grad_norms()
            self.mark()

    def mark(self) -> None:
        """Remember the gradients as they are: what happened to them so far (clipping) is no reset."""
        if self.stream is not None:
            self._marks = self.stream.marks()

    def close(self) -> None:
        """The step that is under way is over."""
        if self.stream is not None and self._pending is not None:
            pending, self._pending = self._pending, None
            self._finish(self.stream, pending)

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
        if self.stream.marks() != self._marks:
            return True
        grads = [p.grad for p in self.stream.parameters() if p is not None and p.grad is not None]
        local = [getattr(grad, "_local_tensor", grad) for grad in grads]  # of a DTensor: other ranks are not asked
        return not any(bool((grad != 0).any()) for grad in local)


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
