"""The GPU kernels that change gradients, in Triton; ``torch_triton.py`` is the only caller."""

from __future__ import annotations

import triton
import triton.language as tl

from gradclip.backends.triton_memory import is_aligned, known_length, line_of, narrowed, placed, pointer_to, widened

__all__ = ["clamp", "scale"]


@triton.jit
def _scale(
    start, runs, each, factor, KIND: tl.constexpr, ALIGNED: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):  # fmt: skip
    """Multiply the runs whose factor is not 1, in float32; in float64 where float32 would round a factor to 0 or Inf."""
    x, each = pointer_to(start, KIND, ALIGNED), known_length(each, ALIGNED)
    size = tl.abs(factor)
    wide = tl.max((((size > 0) & (size < 1e-37)) | (size > 1e37)).to(tl.int32), 0) > 0
    factor = factor[:, None]
    for at in range(0, each, COLS):
        place, there = placed(at, runs, each, ROWS, COLS)
        there = there & (factor != 1)
        values = widened(tl.load(x + place, mask=there, other=0), KIND)
        if wide:
            values = (values.to(tl.float64) * factor).to(tl.float32)
        else:
            values = values * factor.to(tl.float32)
        tl.store(x + place, narrowed(values, KIND), mask=there)


@triton.jit(do_not_specialize=["step"])
def scale(chunks, addresses, factors, step, KINDS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Multiply every cell by its factor, in place; ``step`` 0 has one factor for all. A factor of 1 costs no traffic.

    From the last chunk to the first: what was measured last is still in the second-level cache.
    """
    kind, start, runs, each, cell, _ = line_of(chunks, addresses, tl.num_programs(0) - 1 - tl.program_id(0))
    run = tl.arange(0, ROWS)
    factor = tl.load(factors + (cell + run) * step, mask=run < runs, other=1.0)
    if tl.max((factor != 1).to(tl.int32), 0) > 0:
        aligned = is_aligned(start, each)
        for KIND in tl.static_range(3):
            if (KINDS >> KIND) & 1:
                if kind == KIND:
                    if aligned:
                        _scale(start, runs, each, factor, KIND, True, ROWS, COLS)
                    else:
                        _scale(start, runs, each, factor, KIND, False, ROWS, COLS)


@triton.jit
def _clamp(
    start, runs, each, low, high,
    KIND: tl.constexpr, ALIGNED: tl.constexpr, WRITE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Return whether any element lies outside; only tiles that have one are written to. NaN stays NaN."""
    x, each = pointer_to(start, KIND, ALIGNED), known_length(each, ALIGNED)
    low = widened(narrowed(tl.full((1, 1), low, tl.float32), KIND), KIND)
    high = widened(narrowed(tl.full((1, 1), high, tl.float32), KIND), KIND)
    found = tl.zeros((), tl.int32)
    for at in range(0, each, COLS):
        place, there = placed(at, runs, each, ROWS, COLS)
        values = widened(tl.load(x + place, mask=there, other=0), KIND)
        below, above = there & (values < low), there & (values > high)
        outside = tl.max(tl.max((below | above).to(tl.int32), 1), 0)
        found = tl.maximum(found, outside)
        if WRITE:
            if outside > 0:
                values = tl.where(below, low, tl.where(above, high, values))
                tl.store(x + place, narrowed(values, KIND), mask=there)
    return found


@triton.jit
def clamp(
    chunks, addresses, found, low, high, WRITE: tl.constexpr, KINDS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):  # fmt: skip
    """Write for every chunk whether any element lies outside [low, high], and clamp those that do (or only look)."""
    kind, start, runs, each, _, _ = line_of(chunks, addresses, tl.program_id(0))
    aligned = is_aligned(start, each)
    for KIND in tl.static_range(3):
        if (KINDS >> KIND) & 1:
            if kind == KIND:
                if aligned:
                    outside = _clamp(start, runs, each, low, high, KIND, True, WRITE, ROWS, COLS)
                else:
                    outside = _clamp(start, runs, each, low, high, KIND, False, WRITE, ROWS, COLS)
                tl.store(found + tl.program_id(0), outside)
