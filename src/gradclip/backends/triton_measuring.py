"""The GPU kernels that measure, in Triton. They know no method and no policy; ``torch_triton.py`` is the only caller.

Every run has a sum of its own and these are joined in a fixed order, so the same gradients give the same bits. Sums run in
float32 lanes over the few elements that a lane sees of a chunk, and across lanes in float64. A chunk whose squares overflowed
or vanished is summed again in float64, so a finite gradient of any size is measured exactly, to about 1e-8.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gradclip.backends.triton_memory import INF, is_aligned, known_length, line_of, placed, pointer_to, widened

__all__ = ["conclude", "join", "measure"]

_LARGEST = tl.constexpr(0)
"""The p by which kernels are told the largest element; 1 and 2 are themselves."""
_SMALL = tl.constexpr(0x2B8CBCCC)
"""The bits of 1e-12: where no element is larger, float32 squares may have vanished."""
_WIDE_INF = tl.constexpr(0x7FF0000000000000)


@triton.jit
def _root(sums, P: tl.constexpr):
    if P == 2:
        sums = tl.sqrt(sums)
    return sums


@triton.jit
def _sums(x, runs, each, P: tl.constexpr, KIND: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Return for each run the sum of squares (or of sizes), and the bits of its largest size.

    Without its sign bit an element is ordered like an integer, NaN above Inf.
    """
    sums = tl.zeros((ROWS, COLS), tl.float32)
    tops = tl.zeros((ROWS, COLS), tl.int32)
    for at in range(0, each, COLS):
        place, there = placed(at, runs, each, ROWS, COLS)
        values = widened(tl.load(x + place, mask=there, other=0), KIND)
        tops = tl.maximum(tops, values.to(tl.int32, bitcast=True) & 0x7FFFFFFF)
        if P == 2:
            sums += values * values
        elif P == 1:
            sums += tl.abs(values)
    return tl.sum(sums.to(tl.float64), 1), tl.max(tops, 1)


@triton.jit
def _wide_sums(x, runs, each, P: tl.constexpr, KIND: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Return the same sums in float64 throughout: exact, and the slower way."""
    sums = tl.zeros((ROWS, COLS), tl.float64)
    for at in range(0, each, COLS):
        place, there = placed(at, runs, each, ROWS, COLS)
        values = widened(tl.load(x + place, mask=there, other=0), KIND).to(tl.float64)
        if P == 2:
            sums += values * values
        else:
            sums += tl.abs(values)
    return tl.sum(sums, 1)


@triton.jit
def _measure(
    start, runs, each, out, whole,
    P: tl.constexpr, KIND: tl.constexpr, ALIGNED: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    x, each = pointer_to(start, KIND, ALIGNED), known_length(each, ALIGNED)
    sums, tops = _sums(x, runs, each, P, KIND, ROWS, COLS)
    if P == _LARGEST:
        sums = tops.to(tl.float32, bitcast=True).to(tl.float64)
    else:
        lost = (tops < INF) & ((sums == float("inf")) | ((tops > 0) & (tops < _SMALL)))
        if tl.max(lost.to(tl.int32), 0) > 0:
            sums = _wide_sums(x, runs, each, P, KIND, ROWS, COLS)
    run = tl.arange(0, ROWS)
    tl.store(out + run, tl.where(whole, _root(sums, P), sums), mask=run < runs)


@triton.jit(do_not_specialize=["cells"])
def measure(
    chunks, addresses, out, cells, P: tl.constexpr, KINDS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):  # fmt: skip
    """Write the norm of every cell that lies in one chunk, and for the others the sum of each part behind them.

    One program a chunk. ``KINDS`` has a bit for each kind of element that occurs.
    """
    kind, start, runs, each, _, slot = line_of(chunks, addresses, tl.program_id(0))
    aligned = is_aligned(start, each)
    for KIND in tl.static_range(3):
        if (KINDS >> KIND) & 1:
            if kind == KIND:
                if aligned:
                    _measure(start, runs, each, out + slot, slot < cells, P, KIND, True, ROWS, COLS)
                else:
                    _measure(start, runs, each, out + slot, slot < cells, P, KIND, False, ROWS, COLS)


@triton.jit
def join(lines, out, P: tl.constexpr, TILE: tl.constexpr):
    """Join the parts of every cell that has several, in order; one program a cell."""
    line = lines + 4 * tl.program_id(0)
    first, count = out + tl.load(line + 1), tl.load(line + 2).to(tl.int32)
    lane = tl.arange(0, TILE)
    sums = tl.zeros((TILE,), tl.float64)
    tops = tl.zeros((TILE,), tl.int64)
    for at in range(0, count, TILE):
        parts = tl.load(first + at + lane, mask=at + lane < count, other=0.0)
        sums += parts
        tops = tl.maximum(tops, parts.to(tl.int64, bitcast=True) & 0x7FFFFFFFFFFFFFFF)
    if P == _LARGEST:
        tl.store(out + tl.load(line), tl.max(tops, 0).to(tl.float64, bitcast=True))
    else:
        tl.store(out + tl.load(line), _root(tl.sum(sums, 0), P))


@triton.jit(do_not_specialize=["count"])
def conclude(cells, out, returned, count, limit, rest, P: tl.constexpr, TILE: tl.constexpr):
    """Write the norm of all cells together and ``min(1, limit / (norm + 1e-6))``; one program does it all.

    Divided by the largest cell first, so that no finite norm overflows. ``rest`` is what float32, in which a kernel is handed
    a number, has left of the limit.
    """
    lane = tl.arange(0, TILE)
    tops = tl.zeros((TILE,), tl.int64)
    for at in range(0, count, TILE):
        norms = tl.load(cells + at + lane, mask=at + lane < count, other=0.0)
        tops = tl.maximum(tops, norms.to(tl.int64, bitcast=True) & 0x7FFFFFFFFFFFFFFF)
    top = tl.max(tops, 0)
    norm = top.to(tl.float64, bitcast=True)
    if P != _LARGEST:
        scale = tl.where((top > 0) & (top < _WIDE_INF), norm, 1.0)
        sums = tl.zeros((TILE,), tl.float64)
        for at in range(0, count, TILE):
            norms = tl.load(cells + at + lane, mask=at + lane < count, other=0.0) / scale
            sums += norms * norms if P == 2 else norms
        norm = _root(tl.sum(sums, 0), P) * scale
    factor = (tl.full((), limit, tl.float64) + tl.full((), rest, tl.float64)) / (norm + 1e-6)
    tl.store(out, norm)
    tl.store(out + 1, tl.where(factor > 1, 1.0, factor))  # NaN stays NaN
    tl.store(returned, norm.to(returned.dtype.element_ty))
