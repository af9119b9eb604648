"""Did it help? A run, the same run once more unchanged, and once more with another clipping, held against each other.

The unchanged one is the control: what differs between it and the recorded run is chance (an unseeded script, another thread
count), and a change counts only where it moves the loss by clearly more than that. One control shows that there is noise, not
how much there can be; so the factor is generous, and the sentence says what was compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from gradclip.diagnosis.formatting import number
from gradclip.diagnosis.readings.losses import final_loss, first_difference
from gradclip.runs import Steps

__all__ = ["ReplayComparison", "compare_replays"]

NOISE: Final = 3.0
"""Times the difference between the two unchanged runs."""
LEAST: Final = 0.01
"""Of the loss: less is no difference that anyone would act on, however reproducible."""

Verdict = Literal["helps", "harms", "makes no difference", "is not enough"]
"""The last one: the loss stays finite with it, and ends above where it began."""


@dataclass(frozen=True)
class ReplayComparison:
    """What three runs of one script say of a change."""

    recipe: str
    verdict: Verdict
    recorded: float
    """The mean loss of the last tenth of the run that was recorded first."""
    control: float
    """The same of the unchanged rerun."""
    changed: float
    """The same of the rerun with the recipe."""
    reproducible: bool
    """Whether the unchanged rerun is the recorded run again, to the bit."""
    diverged_at: int | None
    """The step at which the changed run leaves the unchanged one."""

    @property
    def sentence(self) -> str:
        """The verdict, with the losses it stands on."""
        ends = f"the loss ends at {number(self.changed)} instead of {number(self.control)}"
        return f"{self.recipe} {self.verdict}: {ends} (mean of the last tenth; recorded before: {number(self.recorded)})."

    @property
    def notes(self) -> tuple[str, ...]:
        """What the verdict can and cannot rest on."""
        return tuple(self._notes())

    def _notes(self) -> Iterator[str]:
        if self.reproducible:
            yield "Run again unchanged, the script repeated the recorded run to the bit: what differs is the clipping's doing."
        else:
            difference = number(abs(self.control - self.recorded))
            yield (
                f"Run again unchanged, the script did not repeat the recorded run (loss apart by {difference}): "
                f"a change counts only above {NOISE:g} times that. Fix its seeds for a sharper answer."
            )
        if self.diverged_at is None:
            yield "The clipping never changed a loss or a norm."
        else:
            yield f"The clipped run leaves the unchanged one at step {self.diverged_at:,}."


def compare_replays(recipe: str, recorded: Steps, control: Steps, changed: Steps) -> ReplayComparison:
    """Hold a run, its unchanged rerun and its changed rerun against each other.

    Args:
        recipe: what the changed run was clipped with.
        recorded: the steps of the first optimizer, as of the others; shorter runs are compared as far as they go.
        control: the steps of the same script, unchanged.
        changed: the steps of the same script with the recipe.
    """
    first = min(len(steps.measured("loss")) for steps in (recorded, control, changed))
    before, again, after = (final_loss(steps, first) for steps in (recorded, control, changed))
    began = changed.measured("loss")[:1]
    verdict = _verdict(before, again, after, float(began[0]) if len(began) else math.nan)
    return ReplayComparison(
        recipe, verdict, before, again, after, first_difference(recorded, control) is None, first_difference(control, changed)
    )


def _verdict(recorded: float, control: float, changed: float, began: float) -> Verdict:
    if not math.isfinite(changed):
        return "harms" if math.isfinite(control) else "makes no difference"
    unchanged = [loss for loss in (recorded, control) if math.isfinite(loss)]
    if len(unchanged) < 2:
        return "is not enough" if changed > began else "helps"
    margin = max(NOISE * abs(recorded - control), LEAST * abs(control))
    if min(unchanged) - changed > margin:
        return "helps"
    return "harms" if changed - max(unchanged) > margin else "makes no difference"
