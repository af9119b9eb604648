"""How the GPU kernels get at memory: the table of chunks, pointers out of addresses, elements in float32 and back.

A program reads its line of a table (see ``chunks.py``): where its chunk begins, and how many runs of how many elements it
holds. A run is a cell, or a part of one where a cell is larger than a chunk.

Loads are 16 bytes wide where a chunk begins at a multiple of 16 bytes and its runs are multiples of 8 elements; elsewhere they
are one element wide, still side by side. The compiler cannot know an address that comes out of a table, so each of the two
ways is compiled from a pointer of its own, and only one of them is promised to be aligned.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

__all__ = ["INF", "is_aligned", "known_length", "line_of", "narrowed", "placed", "pointer_to", "widened"]

INF = tl.constexpr(0x7F800000)
"""The bits of float32's Inf."""
_INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def line_of(chunks, addresses, at):
    """Return what the table says of a chunk: kind, address, runs, elements of a run, first cell, first slot."""
    line = chunks + 8 * at
    start = tl.load(addresses + tl.load(line)) + tl.load(line + 2)
    runs, each = tl.load(line + 3).to(tl.int32), tl.load(line + 4).to(tl.int32)
    return tl.load(line + 1), start, runs, each, tl.load(line + 5), tl.load(line + 6)


@triton.jit
def pointer_to(start, KIND: tl.constexpr, ALIGNED: tl.constexpr):
    """Return an address as a pointer to float32 (kind 0), the bits of bfloat16 (1), or float16 (2)."""
    if KIND == 0:
        pointer = start.to(tl.pointer_type(tl.float32))
    elif KIND == 1:
        pointer = start.to(tl.pointer_type(tl.int16))
    else:
        pointer = start.to(tl.pointer_type(tl.float16))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def widened(values, KIND: tl.constexpr):
    """Return elements in float32."""
    if KIND == 1:
        values = (values.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    return values.to(tl.float32)


@triton.jit
def narrowed(values, KIND: tl.constexpr):
    """Round float32 to elements, ties to even."""
    if KIND == 2:
        values = values.to(tl.float16)
    elif KIND == 1:
        if _INTERPRETED:  # its own conversion cuts off
            bits = values.to(tl.int32, bitcast=True)
            rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
            values = tl.where((bits & 0x7FFFFFFF) > INF, 0x7FC0, rounded).to(tl.int16)
        else:
            values = values.to(tl.bfloat16).to(tl.int16, bitcast=True)
    return values


@triton.jit
def placed(at, runs, each, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Return where the elements of a tile lie, one run a row, and which of them there are."""
    row = tl.arange(0, ROWS)[:, None]
    column = at + tl.arange(0, COLS)[None, :]
    return row * each + column, (row < runs) & (column < each)


@triton.jit
def known_length(each, ALIGNED: tl.constexpr):
    """Return the length of a run in a way that shows the compiler what it is a multiple of."""
    if ALIGNED:
        each = each // 8 * 8
    return each


@triton.jit
def is_aligned(start, each):
    """Return whether a chunk can be read 16 bytes at a time."""
    return (start % 16 == 0) & (each % 8 == 0)
