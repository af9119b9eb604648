"""Clipping that was asked for on the command line, in place of the script's own."""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap
from typing import Any, NoReturn

import torch

from gradclip.chain import Chain
from gradclip.clipping import Clipping
from gradclip.torch import Attachment, Clipper, attach, get_total_norm
from gradclip.torch.attachment import attachment_of
from gradclip.watch.observe.call_wrapper import Call
from gradclip.watch.observe.other_clipping import OtherClipping
from gradclip.watch.record.stream import Stream

__all__ = ["ReplaceClipping"]

MEASURE = "global_norm:inf,nonfinite=propagate"


class ReplaceClipping:
    """Clip every optimizer's steps, and leave the script's own clipping out.

    Args:
        clipping: the method.
        on_failure: is given one sentence where it cannot be applied.
    """

    def __init__(self, clipping: Clipping | Chain, on_failure: Callable[[str], object]) -> None:
        self._clipping, self._on_failure = clipping, on_failure
        self._handles: list[Attachment] = []
        self._clippers: list[Clipper] = []
        self._by_hand: tuple[int, Clipper] | None = None
        self.left_out = 0
        """Calls of the script's own clipping that did nothing."""

    def clip_steps_of(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip this optimizer's steps from now on; an attachment that the script has made clips with this method instead."""
        handle = attachment_of(optimizer)
        if handle is not None and handle.clipper in self._clippers:
            return
        try:
            if handle is None:
                handle = attach(optimizer, self._clipping)
                self._handles.append(handle)
            else:
                handle.clipper = Clipper(optimizer, self._clipping)
                self.left_out += 1
            self._clippers.append(handle.clipper)
        except Exception as error:
            self._fail(error)

    def clip_by_hand(self, stream: Stream) -> None:
        """Clip the gradients that a hand-written update is about to use."""
        parameters = [p for p in stream.parameters() if p is not None]
        key = hash(tuple(map(id, parameters)))
        if self._by_hand is None or self._by_hand[0] != key:
            try:
                self._by_hand = key, Clipper(parameters, self._clipping)
            except Exception as error:
                self._fail(error)
            self._clippers.append(self._by_hand[1])
        self._by_hand[1].clip_()

    def leave_out(self, name: str, call: Call) -> None:
        """Return from a call of torch's clipping what it would have returned, and leave the gradients alone."""
        self.left_out += 1
        call.replaced = True
        if name == "clip_grad_norm_":
            grads = [p.grad for p in call.note if p.grad is not None]
            call.result = torch.nn.utils.get_total_norm(grads, call.argument(2, "norm_type", 2.0))

    def leave_out_other(self, other: OtherClipping, call: Call) -> None:
        """Return from another library's clipping what it would have returned, and leave the gradients alone."""
        if refusal := other.refusal(call):
            self._fail(ValueError(refusal))
        self.left_out += 1
        grads = [p.grad for p in call.note if p.grad is not None]
        call.replaced, call.result = True, other.result(get_total_norm(grads, call.argument(2, "norm_type", 2.0)))

    def measures_only(self, call: Call) -> bool:
        """Let a clipper that is not one of these only measure; whether it was one of the script's."""
        clipper: Any = call.args[0]
        if clipper in self._clippers:
            return False
        self.left_out += 1
        named = dict(zip(clipper.names, clipper.parameters, strict=True))
        call.replaced, call.result = True, unwrap(Clipper.clip_)(Clipper(named, MEASURE))
        return True

    def detach(self) -> None:
        """Stop clipping."""
        while self._handles:
            self._handles.pop().detach()

    def _fail(self, error: Exception) -> NoReturn:
        """End the script before its weights have moved: it would train unclipped, or clipped by half, under a wrong name."""
        self.detach()
        self._on_failure(f"--clip {self._clipping} cannot be applied, so the script was stopped: {error}")
        raise SystemExit(2)
