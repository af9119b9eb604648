"""Ranks that train copies of the same weights do not do the same: their gradients, their clipping or their steps differ.

Why it is bad:
    Each rank changes its copy in its own way, so that they drift apart: the job trains several models, each on a part of the
    data, and saves one of them. Where ranks hold shards of one model, a step that some of them skip leaves a mixture of two
    steps. Losses look usual all the while, for each rank's copy does learn.

How it is detected:
    In a job of several processes each rank records its own norms, which are compared when the run is read. Two ranks train
    the same where a ``DTensor`` says so (replicas), or where they have the same tensors and the norms of all of these were the
    same at the beginning, to one in a million. They disagree where the norm of one tensor's gradient, before or after clipping,
    differs by more than 1%, where one of them holds a NaN or Inf and the other does not, where one rank skipped a step, or
    where both have finished after different numbers of steps. Ranks that began with other weights are taken to train other
    models.

Wrong:
    dist.init_process_group("gloo")
    model = make_model().to(device)  # on every rank
    ...
    loss.backward()
    if dist.get_rank() == 0:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

Right:
    dist.init_process_group("gloo")
    model = torch.nn.parallel.DistributedDataParallel(make_model().to(device))
    ...
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # on every rank
    optimizer.step()

References:
    - https://docs.pytorch.org/docs/stable/notes/ddp.html
    - https://docs.pytorch.org/docs/stable/distributed.algorithms.join.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import number, plural
from gradclip.diagnosis.readings.event_order import call_site_of
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.runs import Disagreement

FIXES: Final = {
    "norm": """\
# have the gradients averaged over all ranks in backward()
model = torch.nn.parallel.DistributedDataParallel(model)
# call backward() of the last micro-batch outside of model.no_sync(), and model(...), not model.module(...)""",
    "clipped_norm": """\
# clip on every rank, with the same threshold, outside of any `if rank == 0:`
loss.backward()
torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
optimizer.step()""",
    "skipped": """\
# let all ranks skip a step, or none
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
scaler = ShardedGradScaler()  # with FSDP, in place of GradScaler
gradclip.attach(optimizer, "global_norm:1.0")  # its nonfinite=skip decides on all ranks together""",
    "steps": """\
# give every rank the same number of batches
sampler = torch.utils.data.DistributedSampler(dataset, drop_last=True)
loader = torch.utils.data.DataLoader(dataset, batch_size=batch_size, sampler=sampler, drop_last=True)""",
}


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect ranks that should do the same and do not, once for each way in which they differ."""
    found = [] if run.ranks is None else [one for one in run.ranks.disagreements if one.optimizer == optimizer.number]
    for what in FIXES:
        alike = sorted((one for one in found if one.what == what), key=lambda one: (one.step, one.rank))
        if alike:
            yield _symptom(run, optimizer, alike)


def _symptom(run: RunData, optimizer: OptimizerRun, found: Sequence[Disagreement]) -> Symptom:
    worst = found[0]
    more = len(found) - 1
    others = f"; so {'do' if more > 1 else 'does'} {plural(more, 'other pair')} of ranks" if more else ""
    names = {"norm": "gradient norm", "clipped_norm": "gradient norm after clipping", "steps": "steps", "skipped": "skipped"}
    evidence = tuple(
        Evidence(f"{names[worst.what]} on rank {rank}", value, step=worst.step, tensor=worst.tensor)
        for rank, value in zip((worst.first, worst.rank), worst.values, strict=True)
    )
    kind = {"clipped_norm": "clip", "norm": "backward"}.get(worst.what, "step")
    place = call_site_of(run, optimizer, kind)
    return Symptom("warning", f"{_sentence(worst)}{others}.", evidence, FIXES[worst.what], "likely", place)


def _sentence(one: Disagreement) -> str:
    first, other = one.values
    if one.what == "steps":
        return (
            f"Rank {one.rank} made {plural(int(other), 'step')} and rank {one.first} {first:,.0f}, though they train together"
        )
    if one.what == "skipped":
        skipping, stepping = (one.rank, one.first) if other else (one.first, one.rank)
        return f"Rank {skipping} skipped step {one.step:,} and rank {stepping} did not, though they train together"
    after = " after clipping" if one.what == "clipped_norm" else ""
    return (
        f"Ranks {one.first} and {one.rank} train copies of the same weights, but at {one.steps:,} of {one.compared:,} steps, "
        f"the first of them step {one.step:,}, their gradients{after} differ: {one.tensor} has norm {number(first)} on rank "
        f"{one.first} and {number(other)} on rank {one.rank}"
    )
