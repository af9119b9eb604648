"""The gradient norm grows out of bounds, and the loss does not recover from the steps it makes.

Why it is bad:
    A step is the learning rate times the gradient. One with a hundred times the usual norm throws the weights to a place where
    nothing that was learned holds; from there the run diverges, ends in NaN, or sits on a plateau with dead units. In recurrent
    nets the norm can grow exponentially with the length of the sequence.

How it is detected:
    The norm of a step that reached the weights (after clipping, not skipped) is above 10 times the median of the 128 before
    it and more than 6 standard deviations above it on a logarithmic scale, and the loss is clearly worse afterwards, worse
    than at that step too (else it is the data that changed), and not back within 50 steps, or no finite number. Or, within
    the first 20 steps, the norm passes 100 times the first one and the loss stays above 10 times what it was before; or a
    single peak of 10 times the norms before and after it throws the loss above twice its first value for 50 steps, and the
    run never gets to half of that value. Or the median norm grows a thousandfold from the first third of the run to the last
    and the loss ends above twice its first value. Where a learning rate jumped just before, that is told instead. A large
    norm alone is none: noisy runs that learn have single norms of 20 medians.

Wrong:
    loss.backward()
    optimizer.step()

Right:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
    optimizer.step()

References:
    - Pascanu, Mikolov, Bengio 2013, On the difficulty of training recurrent neural networks, https://arxiv.org/abs/1211.5063
    - Zhang, He, Sra, Jadbabaie 2020, Why gradient clipping accelerates training, https://arxiv.org/abs/1905.11881
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html
"""

from __future__ import annotations

from collections.abc import Iterator

from gradclip.diagnosis.advice.threshold_fix import explosion_fix
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import number
from gradclip.diagnosis.readings.event_order import call_site_of
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.explosions import Explosion, explosion_of
from gradclip.diagnosis.signals.largest_layer import largest_layer
from gradclip.diagnosis.signals.learning_rate_jumps import harmful_jump
from gradclip.diagnosis.signals.loss_harm import SOON


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect norms that grew out of bounds and did harm."""
    found = explosion_of(optimizer)
    if found is None or _raised(optimizer, found):
        return
    evidence = (found.norm, *largest_layer(optimizer, found.norm.step or found.step), found.harm)
    fix = explosion_fix(run, optimizer, found)
    place = call_site_of(run, optimizer, "step")
    yield Symptom("error", _sentence(found), evidence, fix, "certain" if found.fatal else "likely", place)


def _raised(optimizer: OptimizerRun, found: Explosion) -> bool:
    """Whether a learning rate that jumped is behind it, which ``learning-rate-spike`` tells."""
    jump = harmful_jump(optimizer)
    return jump is not None and jump.step <= found.step <= jump.step + SOON


def _sentence(found: Explosion) -> str:
    times = f"{number(found.times)} times"
    grew = (
        f"grew through the whole run, to {times} its size in the first third"
        if found.kind == "gradual"
        else f"exploded at step {found.step:,} to {times} what was usual"
    )
    ended = "ended in NaN or Inf" if found.fatal else "did not recover"
    return f"The gradient norm {grew}, and the run {ended}."
