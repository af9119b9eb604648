"""What is to be said of the ranks of a job: which are missing or ended early, and where those that should agree do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from gradclip.runs.rank_layout import Copy, RankLayout, aligned, rank_layout
from gradclip.runs.schema import ABSENT

if TYPE_CHECKING:
    from gradclip.runs.rank_files import RankFiles
    from gradclip.runs.reader import Run

__all__ = ["Disagreement", "RankReport", "rank_report"]

WINDOW: Final = 1000
"""Steps that are compared at a time."""
APART: Final = 0.01
"""Of a norm: replicas that are computed on every rank may differ by rounding, in bfloat16 by some thousandths."""
SMALL: Final = 0.001
"""Of the whole norm: what is smaller than that may be rounding itself."""
SAME_WEIGHTS: Final = 1e-6
"""Of a weight's norm: what was copied, or initialised from the same seed, is the same to the bit."""

ENDED: Final = {
    "crashed": "crashed",
    "interrupted": "was interrupted",
    "killed": "was killed",
    "incomplete": "was recorded no longer",
}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Disagreement:
    """Two ranks that should do the same, and do not."""

    what: Literal["norm", "clipped_norm", "skipped", "steps"]
    optimizer: int
    rank: int
    """The one that differs from ``first``."""
    first: int
    step: int
    """The first step at which they do; of ``steps``, the first that one of them has not made."""
    values: tuple[float, float]
    """Of ``first`` and of ``rank``."""
    tensor: str = ""
    steps: int = 1
    """At how many steps."""
    compared: int = 1


@dataclass(frozen=True)
class RankReport:
    """The ranks of a job."""

    size: int
    problems: tuple[str, ...]
    """What is not known of the job, and why, each a sentence."""
    disagreements: tuple[Disagreement, ...]


def rank_report(files: RankFiles) -> RankReport:
    """Look at the files of all ranks."""
    layouts = {number: rank_layout(files.runs, number) for number in files.runs[0].optimizers}
    problems, found = list(_problems(files, layouts)), list[Disagreement]()
    for number, layout in layouts.items():
        for copy in layout.copies:
            apart = _first_difference(files.runs, number, layout, copy)
            if apart is not None and _are_replicas(files.runs, number, layout, copy):
                found.append(apart)
            elif apart is not None:
                problems.append(
                    f"gradient norms of rank {copy.rank} differ from those of rank {copy.first} ({apart.tensor}, step "
                    f"{apart.step:,}), and nothing says whether both have the same tensor: norms are those of rank {copy.first}"
                )
        found += _counts_and_skips(files, number, layout)
    return RankReport(files.size, tuple(problems), tuple(found))


def _problems(files: RankFiles, layouts: Mapping[int, RankLayout]) -> Iterator[str]:
    """What is missing, rank by rank, and else of the tensors."""
    cut = any((layout.shards != 1).any() for layout in layouts.values())
    missing = list(_missing(files, layouts, cut))
    yield from missing
    for layout in layouts.values():
        if unknown := int((layout.shards == 0).sum()):
            yield (
                f"of {unknown:,} gradients each rank has a summand, or a part of which nothing says where it lies: "
                "gradient norms are not known"
            )
        absent = int(((layout.held < layout.shards) & (layout.shards > 1)).sum())
        if absent and not missing:
            yield f"some shards of {absent:,} tensors are on no rank: gradient norms are not known"


def _missing(files: RankFiles, layouts: Mapping[int, RankLayout], cut: bool) -> Iterator[str]:
    if not files.awaited:
        for rank in files.missing:
            why = files.unreadable.get(rank)
            unknown = "; gradient norms are not known without it" if cut else ""
            yield f"rank {rank} of {files.size} {f'cannot be read: {why}' if why else 'left no run file'}{unknown}"
    for rank, run in sorted(files.runs.items()):
        if rank == 0 or files.is_writing(rank) or files.is_writing(0):
            continue
        for number in layouts:
            own, whole = len(run.steps(number)), len(files.runs[0].steps(number))
            if run.status != "finished":
                after = "; gradient norms after that are not known" if cut and own < whole else ""
                yield f"rank {rank} of {files.size} {ENDED[run.status]} after {own:,} of {whole:,} steps{after}"


def _counts_and_skips(files: RankFiles, number: int, layout: RankLayout) -> Iterator[Disagreement]:
    """Steps that one rank made, or skipped, and another did not; stages that train by themselves may."""
    runs = files.runs
    together = {copy.rank for copy in layout.copies if _are_replicas(runs, number, layout, copy)}
    cut = bool((layout.shards > 1).any())
    for rank in sorted(set(runs) - {0}):
        if cut or rank in together:
            yield from _skips(runs, number, rank)
            yield from _counts(runs, number, rank)


def _counts(runs: Mapping[int, Run], number: int, rank: int) -> Iterator[Disagreement]:
    first, own = runs[0].steps(number).step, runs[rank].steps(number).step
    if len(own) != len(first) and runs[0].status == runs[rank].status == "finished":
        longer = own if len(own) > len(first) else first
        step = int(longer[min(len(own), len(first))])
        yield Disagreement("steps", number, rank, 0, step, (float(len(first)), float(len(own))))


def _skips(runs: Mapping[int, Run], number: int, rank: int) -> Iterator[Disagreement]:
    ours, theirs = runs[0].steps(number), runs[rank].steps(number)
    steps, at, at_theirs = np.intersect1d(ours.step, theirs.step, return_indices=True)
    differ = np.flatnonzero(ours.skipped[at] != theirs.skipped[at_theirs])
    if len(differ):
        one = int(differ[0])
        values = float(ours.skipped[at][one]), float(theirs.skipped[at_theirs][one])
        yield Disagreement("skipped", number, rank, 0, int(steps[one]), values, "", len(differ), len(steps))


def _first_difference(runs: Mapping[int, Run], number: int, layout: RankLayout, copy: Copy) -> Disagreement | None:
    """Where the norms of two ranks differ, before clipping or else after it."""
    return next(filter(None, (_compared(runs, number, layout, copy, kind) for kind in ("norm", "clipped_norm"))), None)


def _are_replicas(runs: Mapping[int, Run], number: int, layout: RankLayout, copy: Copy) -> bool:
    """Whether two ranks have copies of the same, and not parts that somebody has cut by hand and called alike.

    Shards say so themselves. Whole tensors are copies if the two ranks have the same ones, and all began with the same norms.
    """
    if (layout.shards[copy.columns] > 1).any():
        return True
    if len(copy.columns) < len(layout.tensors):
        return False
    begins = []
    for rank, places in ((copy.first, copy.first_places), (copy.rank, copy.places)):
        steps, rows = next(runs[rank].tensor_chunks("weight_norm", number, rows=1), (None, None))
        if steps is None or rows is None:
            return False
        begins.append((int(steps[0]), rows[0, places]))
    (step, one), (other_step, other) = begins
    return bool(step == other_step and (one > 0).any() and np.allclose(one, other, rtol=SAME_WEIGHTS, atol=0))


def _compared(runs: Mapping[int, Run], number: int, layout: RankLayout, copy: Copy, kind: str) -> Disagreement | None:
    """Compare the norms of what both ranks have, at all steps that both have made."""
    ours, theirs = runs[copy.first], runs[copy.rank]
    steps = np.intersect1d(ours.steps(number).step, theirs.steps(number).step)
    found: list[tuple[int, int, float, float]] = []
    compared = 0
    for begin in range(0, len(steps), WINDOW):
        window = steps[begin : begin + WINDOW]
        there, one = _norms(ours, number, window, copy.first_places, kind)
        there_too, other = _norms(theirs, number, window, copy.places, kind)
        both = there & there_too
        compared += int(both.sum())
        apart = _apart(one, other) & both[:, None]
        for at in np.flatnonzero(apart.any(axis=1)):
            where = int(np.flatnonzero(apart[at])[0])
            found.append((int(window[at]), where, float(one[at, where]), float(other[at, where])))
    if not found:
        return None
    step, where, value, its_value = found[0]
    name = layout.tensors[int(copy.columns[where])].name
    what: Any = kind
    return Disagreement(what, number, copy.rank, copy.first, step, (value, its_value), name, len(found), compared)


def _norms(run: Run, number: int, steps: Any, places: Any, kind: str) -> tuple[NDArray[np.bool_], Floats]:
    """The norms of some tensors; after clipping, of a step at which nothing was clipped those before."""
    there, rows = aligned(run, "norm", number, steps)
    if kind != "norm":
        clipped, after = aligned(run, kind, number, steps)
        rows = np.where(clipped[:, None], after, rows)
    return there, rows[:, places]


def _apart(one: Floats, other: Floats) -> NDArray[np.bool_]:
    """Where two norms differ by more than rounding; where one is a number and the other is none."""
    one, other = (np.where(norms == ABSENT, 0.0, norms) for norms in (one, other))
    fine = np.isfinite(one), np.isfinite(other)
    with np.errstate(all="ignore"):
        larger = np.maximum(one, other)
        whole = np.sqrt(np.where(np.isfinite(larger), np.square(larger), 0.0).sum(axis=1, keepdims=True))
        far = (np.abs(one - other) > APART * larger) & (larger > SMALL * whole)
    apart: NDArray[np.bool_] = np.where(fine[0] & fine[1], far, fine[0] != fine[1])
    return apart
