"""Events in words, the same on every page and in the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from gradclip.diagnosis.readings.event_order import calls_of
from gradclip.runs import Event

__all__ = ["call_text", "clip_text", "events_text", "function_text"]


def events_text(events: Iterable[Event]) -> list[str]:
    """Return the words for each call; one that clipped the tensors of several optimizers is an event of each.

    >>> events_text([Event("backward"), Event("clip", 0, "agc:0.01", sequence=1), Event("clip", 1, "agc:0.01", sequence=1)])
    ['backward', 'clip (agc:0.01 (optimizers 0, 1))']
    """
    return [call_text(call) for call in calls_of(events)]


def call_text(call: Sequence[Event]) -> str:
    """Return the words for the events of one call.

    >>> call_text([Event("step", 0)]), call_text([Event("step", 1)]), call_text([Event("clip", 0, "f", reached=3, owned=4)])
    ('step', 'step (optimizer 1)', 'clip (f (3 of 4 tensors))')
    """
    if call[0].kind == "cut":
        return "and so on"
    words = clip_text(call, _whose(call)) if call[0].kind == "clip" else _joined(_whose(call), call[0].detail)
    return f"{call[0].kind} ({words})" if words else call[0].kind


def clip_text(call: Sequence[Event], whose: str = "") -> str:
    """Return what clipped, and how many of the tensors where that is not all.

    >>> clip_text([Event("clip", 1, "clip_grad_norm_", norm=1.0, reached=3, owned=4)])
    'clip_grad_norm_ norm_type=1 (3 of 4 tensors)'
    """
    pairs = [(event.reached, event.owned) for event in call if event.reached is not None and event.owned]
    reached, owned = (sum(counts) for counts in zip(*pairs, strict=True)) if len(pairs) == len(call) else (0, 0)
    words = _joined(whose, f"{reached} of {owned} tensors" if reached != owned else "", call[0].detail)
    return f"{function_text(call[0])} ({words})" if words else function_text(call[0])


def function_text(clip: Event) -> str:
    """Return what was called, without what it reached: ``clip_grad_norm_``, ``clip_grad_norm_ norm_type=1``."""
    norm = f" norm_type={clip.norm:g}" if clip.norm not in (None, 2.0) else ""
    return f"{clip.function}{norm}{' max_norm=inf' if clip.norm is not None and clip.threshold == math.inf else ''}"


def _whose(call: Sequence[Event]) -> str:
    """Name the optimizers, but for the first alone: most runs have one."""
    numbers = [event.optimizer for event in call if event.optimizer is not None]
    if call[0].kind == "clip" and not numbers:
        return "no tensors" if call[0].reached == 0 else "no tensor that is trained"
    if len(numbers) > 1:
        return f"optimizers {', '.join(map(str, numbers))}"
    return f"optimizer {numbers[0]}" if any(numbers) else ""


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))
