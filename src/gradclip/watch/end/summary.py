"""What a watched run says of itself at its end, in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradclip.diagnosis.formatting import percent, plural

if TYPE_CHECKING:
    from gradclip.watch.record.recorder import Totals

__all__ = ["summary"]


def summary(totals: Totals, ending: str, clip: str | None, replaced: int) -> list[str]:
    """Return at most nine lines.

    >>> from gradclip.watch.record.recorder import Totals
    >>> totals = Totals(steps=2, loss=1.0, first_loss=3.0, norm=1.0, largest=5.0, worst="w")
    >>> for line in summary(totals, "finished", None, 0):
    ...     print(line)
    2 steps recorded, finished
    loss    3 -> 1
    norm    1 at the end, at most 5 (largest in w)
    clip    the script did not clip
    """
    lines = [f"{plural(totals.steps, 'step')} recorded, {ending}"]
    if totals.loss == totals.loss or totals.first_loss == totals.first_loss:
        lines.append(f"loss    {totals.first_loss:.4g} -> {totals.loss:.4g}")
    lines.append(f"norm    {totals.norm:.4g} at the end, at most {totals.largest:.4g} (largest in {totals.worst})")
    lines.append(f"clip    {_clipping(totals, clip, replaced)}")
    if totals.nonfinite:
        lines.append(f"NaN     {plural(totals.nonfinite, 'step')} had a NaN or Inf in the gradients")
    if totals.skipped:
        lines.append(f"skip    {plural(totals.skipped, 'step')} {'was' if totals.skipped == 1 else 'were'} skipped")
    return lines


def _clipping(totals: Totals, clip: str | None, replaced: int) -> str:
    if not totals.clip_attempts:
        return "the script did not clip"
    share = f"{percent(totals.clipped / totals.clip_attempts)} of steps"
    if clip is None:
        return f"the script clipped {share}"
    instead = f", in place of the script's own ({plural(replaced, 'call')} left out)" if replaced else ""
    return f"{clip} clipped {share}{instead}"
