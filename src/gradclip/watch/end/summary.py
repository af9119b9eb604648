"""What a watched run says of itself at its end, in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradclip.diagnosis.formatting import percent, plural

if TYPE_CHECKING:
    from gradclip.runs.totals import Totals

__all__ = ["summary"]


def summary(
    totals: Totals,
    ending: str,
    clip: str | None,
    replaced: int,
    written: int,
    path: str,
    not_seen: str = "no clipping was seen",
) -> list[str]:
    """Return at most nine lines; ``written`` of the steps are on the disk, in the file ``path``.

    ``not_seen`` is what to say where no clipping was.

    >>> from gradclip.runs.totals import Totals
    >>> totals = Totals(steps=2, loss=1.0, first_loss=3.0, norm=1.0, largest=5.0, worst="w")
    >>> for line in summary(totals, "finished", None, 0, written=2, path="a.gradclip"):
    ...     print(line)
    2 steps recorded, finished
    loss    3 -> 1
    norm    1 at the end, at most 5 (largest in w)
    clip    no clipping was seen
    >>> summary(totals, "finished", None, 0, written=1, path="a.gradclip")[0]
    '1 of 2 steps recorded, in a.gradclip; finished'
    """
    lines = [_recorded(totals.steps, written, path, ending)]
    if totals.loss == totals.loss or totals.first_loss == totals.first_loss:
        lines.append(f"loss    {totals.first_loss:.4g} -> {totals.loss:.4g}")
    if not totals.sharded:  # else it takes the files of all ranks to know them
        most = f", at most {totals.largest:.4g} (largest in {totals.worst})" if totals.largest == totals.largest else ""
        lines.append(f"norm    {totals.norm:.4g} at the end{most}")
    lines.append(f"clip    {_clipping(totals, clip, replaced, not_seen)}")
    if totals.nonfinite:
        lines.append(f"NaN     {plural(totals.nonfinite, 'step')} had a NaN or Inf in the gradients")
    if totals.skipped:
        lines.append(f"skip    {plural(totals.skipped, 'step')} {'was' if totals.skipped == 1 else 'were'} skipped")
    return lines


def _recorded(steps: int, written: int, path: str, ending: str) -> str:
    if written >= steps:
        return f"{plural(steps, 'step')} recorded, {ending}"
    where = f", in {path}" if written else ""
    return f"{written:,} of {plural(steps, 'step')} recorded{where}; {ending}"


def _clipping(totals: Totals, clip: str | None, replaced: int, not_seen: str) -> str:
    if not totals.clip_attempts:
        return not_seen
    share = f"{percent(totals.clipped / totals.clip_attempts)} of steps"
    if clip is None:
        return f"the script clipped {share}"
    instead = f", in place of the script's own ({plural(replaced, 'call')} left out)" if replaced else ""
    return f"{clip} clipped {share}{instead}"
