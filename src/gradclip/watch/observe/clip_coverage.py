"""Which optimizer was clipped, and what of its tensors, in the words of a clip event."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gradclip.watch.record.stream import Stream

__all__ = ["clip_coverage", "optimizer_label"]


def optimizer_label(stream: Stream) -> str:
    """Name the optimizer of an event, but for the first: most runs have one."""
    return f"optimizer {stream.number}" if stream.number else ""


def clip_coverage(streams: Sequence[Stream], parameters: Sequence[Tensor]) -> str:
    """Say which optimizers were clipped, where it is not the first one alone, and how much, where it is not all of it.

    Args:
        streams: those that have any of the parameters.
        parameters: what was clipped.

    >>> import torch
    >>> a, b = torch.ones(1), torch.ones(1)
    >>> clip_coverage([Stream(0, [a])], [a]), clip_coverage([Stream(0, [a, b])], [a]), clip_coverage([Stream(1, [a, b])], [a])
    ('', ' (1 of 2 tensors)', ' (optimizer 1, 1 of 2 tensors)')
    >>> clip_coverage([Stream(0, [a]), Stream(1, [b])], [a, b])
    ' (optimizers 0, 1)'
    """
    if not streams:
        return " (no tensor that is trained)" if parameters else " (no tensors)"
    share, total = sum(stream.share_of(parameters) for stream in streams), sum(map(len, streams))
    parts = [_names(streams), f"{share} of {total} tensors" if share != total else ""]
    words = ", ".join(filter(None, parts))
    return f" ({words})" if words else ""


def _names(streams: Sequence[Stream]) -> str:
    if len(streams) == 1:
        return optimizer_label(streams[0])
    return f"optimizers {', '.join(map(str, sorted(stream.number for stream in streams)))}"
