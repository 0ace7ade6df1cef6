"""How a block of channels of the CPU convolution moves along its sequence, and the two sums that it makes there.

Rows are copied chunk by chunk, in processing order, behind the `width - 1` rows before them, one vector of channels
after the other: direction, strides, ragged ends, the initial state and changes of `seq_idx` (rows before them become
zero) are settled there. The sums run over plain memory in the nearest cache, several positions (in a weight's gradient:
several taps) at once, so that each multiply-add reads one operand and keeps the other two in registers.

`like` is a number of the element type, `f` the record of `ConvFields`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from genossm_kernels._cpu.lanes import (
    add,
    fma,
    get,
    lane_count,
    load,
    load_all,
    pointer,
    prefetch,
    put,
    shifted,
    splat,
    store_all,
)

INT64 = np.int64(0)
_INT32 = np.int32(0)
BLOCK_FIELDS = 6
# Sums that run at once: they hide the latency of a multiply-add, and their vectors of 512 bits with one more fit into
# the registers of AVX2 (16 of 256 bits) and NEON (32 of 128).
AT_ONCE = 6
# Positions of a chunk, whole groups of sums. Its rows lie on fewer pages than the nearest translation buffer holds.
CHUNK = 48


@njit(error_model="numpy")
def spread_taps(target, f, first, count, newest_first, like):
    """(channels, width) in memory -> for every vector of channels one row of lanes a tap; `target` is zero before."""
    lanes = lane_count(like)
    weight = shifted(pointer(f.weight, like), first * f.width)
    for c in range(count):
        place = c // lanes * f.width * lanes + c % lanes
        for k in range(f.width):
            put(target, place + k * lanes, get(weight, c * f.width + (f.width - 1 - k if newest_first else k)))


@njit(error_model="numpy")
def run_end(f, batch, i, reverse):
    """Where the run of equal sequence indices that begins at `i` ends."""
    if f.seq_idx == 0:
        return f.length
    step = -1 if reverse else 1
    numbers = shifted(pointer(f.seq_idx, _INT32), batch * f.length + (f.length - 1 - i if reverse else i))
    end = i + 1
    while end < f.length and get(numbers, (end - i) * step) == get(numbers, 0):
        end += 1
    return end


@njit(error_model="numpy")
def stage(target, source, hop, count, left, like):
    """Copy the rows of one vector of channels, `hop` apart, one behind the other."""
    for p in range(count):
        store_all(target, p * lane_count(like), load(source, p * hop, left))
        prefetch(source, (p + CHUNK) * hop)  # rows lie further apart than hardware prefetchers look


@njit(error_model="numpy")
def advance(staged, count, before, like):
    """Make the last `before` rows the first ones."""
    lanes = lane_count(like)
    for k in range(before):
        store_all(staged, k * lanes, load_all(staged, (k + count) * lanes))


@njit(error_model="numpy")
def slide(target, source, taps, start, count, width, like):
    """target[p] = start + sum over k of taps[k] source[p + k], for one vector of channels."""
    lanes = lane_count(like)
    for p in range(0, count, AT_ONCE):
        a, b, c, d, e, g = start, start, start, start, start, start
        rows = shifted(source, p * lanes)
        for k in range(width):
            tap = load_all(taps, k * lanes)
            a = fma(tap, load_all(rows, k * lanes), a)
            b = fma(tap, load_all(rows, (k + 1) * lanes), b)
            c = fma(tap, load_all(rows, (k + 2) * lanes), c)
            d = fma(tap, load_all(rows, (k + 3) * lanes), d)
            e = fma(tap, load_all(rows, (k + 4) * lanes), e)
            g = fma(tap, load_all(rows, (k + 5) * lanes), g)
        out = shifted(target, p * lanes)
        store_all(out, 0, a)
        store_all(out, lanes, b)
        store_all(out, 2 * lanes, c)
        store_all(out, 3 * lanes, d)
        store_all(out, 4 * lanes, e)
        store_all(out, 5 * lanes, g)


@njit(error_model="numpy")
def correlate(target, grads, source, count, width, like):
    """target[k] += sum over p of grads[p] source[p + k]: by chunks, which errs less than one running sum."""
    lanes = lane_count(like)
    for k in range(0, width, AT_ONCE):
        a, b, c, d, e, g = splat(like), splat(like), splat(like), splat(like), splat(like), splat(like)
        rows = shifted(source, k * lanes)
        for p in range(count):
            grad = load_all(grads, p * lanes)
            a = fma(grad, load_all(rows, p * lanes), a)
            b = fma(grad, load_all(rows, (p + 1) * lanes), b)
            c = fma(grad, load_all(rows, (p + 2) * lanes), c)
            d = fma(grad, load_all(rows, (p + 3) * lanes), d)
            e = fma(grad, load_all(rows, (p + 4) * lanes), e)
            g = fma(grad, load_all(rows, (p + 5) * lanes), g)
        out = shifted(target, k * lanes)
        store_all(out, 0, add(load_all(out, 0), a))
        store_all(out, lanes, add(load_all(out, lanes), b))
        store_all(out, 2 * lanes, add(load_all(out, 2 * lanes), c))
        store_all(out, 3 * lanes, add(load_all(out, 3 * lanes), d))
        store_all(out, 4 * lanes, add(load_all(out, 4 * lanes), e))
        store_all(out, 5 * lanes, add(load_all(out, 5 * lanes), g))
