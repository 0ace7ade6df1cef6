"""The two loops of the CPU convolution: forward and backward, with channels in the vector lanes.

A block of channels walks the sequence once. Forward reads each input `width` times, all but the first from the
nearest cache. Backward recomputes the value before SiLU, keeps its gradients of the last `width` positions in a
ring, and writes the gradient of an input when the last output that saw it has passed.

`like` is a number of the element type, `f` the record of `ConvFields`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import carray, njit

from genossm_kernels._cpu.elementary import silu, silu_slope
from genossm_kernels._cpu.kernel import Kernel
from genossm_kernels._cpu.lanes import (
    add,
    fma,
    get,
    integers,
    lane_count,
    load,
    load_all,
    mul,
    pointer,
    prefetch,
    put,
    shifted,
    splat,
    store,
    store_all,
    take,
)

_INT32, _INT64 = np.int32(0), np.int64(0)
_BLOCK_FIELDS = 6
_ROWS_AHEAD = 16  # rows lie further apart than hardware prefetchers look


class ConvFields(NamedTuple):
    """Addresses (0 where there is no such tensor), strides in elements, and sizes."""

    x: int
    weight: int
    bias: int
    initial_state: int
    seq_idx: int
    x_batch: int
    x_step: int
    silu: int
    length: int
    channels: int
    width: int
    blocks: int
    block_count: int
    tasks: int
    scratch: int
    scratch_size: int
    y: int = 0
    final_state: int = 0
    grad_y: int = 0
    grad_y_batch: int = 0
    grad_y_step: int = 0
    grad_final_state: int = 0
    grad_x: int = 0
    weight_parts: int = 0
    bias_parts: int = 0
    grad_initial_state: int = 0


@njit(error_model="numpy")
def _spread_taps(target, f, first, count, like):
    """(channels, width) in memory -> one row of lanes a tap, the newest input's tap first."""
    lanes = lane_count(like)
    row = (count + lanes - 1) // lanes * lanes
    weight = shifted(pointer(f.weight, like), first * f.width)
    for back in range(f.width):
        for c in range(row):
            put(target, back * row + c, get(weight, c * f.width + f.width - 1 - back) if c < count else like)


@njit(error_model="numpy")
def _spread_bias(target, f, first, count, like):
    lanes = lane_count(like)
    for c in range((count + lanes - 1) // lanes * lanes):
        put(target, c, get(pointer(f.bias, like), first + c) if f.bias != 0 and c < count else like)


@njit(error_model="numpy")
def _changes(f, batch, i, t, step):
    """Whether the sequence index changes between the position processed before and `t`."""
    if f.seq_idx == 0 or i == 0:
        return False
    numbers = shifted(pointer(f.seq_idx, _INT32), batch * f.length)
    return get(numbers, t) != get(numbers, t - step)


@njit(error_model="numpy")
def _input_row(f, like, batch, first, i, step):
    """The row of inputs processed at `i`; before the first one (i < 0) the rows of the initial state."""
    if i < 0:
        row = (batch * (f.width - 1) + f.width - 1 + i) * f.channels
        return shifted(pointer(f.initial_state, like), row + first)
    t = f.length - 1 - i if step < 0 else i
    return shifted(pointer(f.x, like), batch * f.x_batch + t * f.x_step + first)


@njit(error_model="numpy")
def _taps_in_reach(f, reach, changed):
    """How many inputs the next position sees, given how many the one before it saw."""
    return 1 if changed else min(reach + 1, f.width)


@njit(error_model="numpy")
def _convolve(f, like, taps, bias, batch, first, j, row, left, i, reach, step):
    """bias + sum of `reach` taps, for one vector of channels."""
    out = load_all(bias, j)
    for back in range(reach):
        out = fma(load_all(taps, back * row + j), load(_input_row(f, like, batch, first, i - back, step), j, left), out)
    return out


@njit(error_model="numpy")
def _forward_block(f, like, scratch, batch, first, count, reverse):
    lanes, length = lane_count(like), f.length
    row = (count + lanes - 1) // lanes * lanes
    bias, taps = scratch, shifted(scratch, row)
    _spread_bias(bias, f, first, count, like)
    _spread_taps(taps, f, first, count, like)
    step = -1 if reverse else 1
    x = shifted(pointer(f.x, like), batch * f.x_batch + first)
    y = shifted(pointer(f.y, like), batch * length * f.channels + first)
    reach = f.width - 1 if f.initial_state != 0 else 0
    for i in range(length):
        t = length - 1 - i if reverse else i
        reach = _taps_in_reach(f, reach, _changes(f, batch, i, t, step))
        for j in range(0, count, lanes):
            prefetch(x, (t + _ROWS_AHEAD * step) * f.x_step + j)
            left = count - j
            out = _convolve(f, like, taps, bias, batch, first, j, row, left, i, reach, step)
            if f.silu:
                out = silu(out)
            store(y, t * f.channels + j, out, left)
    # The state carries on where the last position stands: inputs out of its reach count as zero from here on.
    tail = shifted(pointer(f.final_state, like), batch * (f.width - 1) * f.channels + first)
    for back in range(f.width - 1):
        for j in range(0, count, lanes):
            value = splat(like)
            if back < reach:
                value = load(_input_row(f, like, batch, first, length - 1 - back, step), j, count - j)
            store(tail, (f.width - 2 - back) * f.channels + j, value, count - j)


@njit(error_model="numpy")
def _emit_input_gradient(f, like, taps, ring, batch, first, count, row, i, latest, ended, step):
    """Write the gradient of the input processed at `i`: what the outputs `i ... latest` before `ended` saw of it."""
    lanes = lane_count(like)
    if i < 0:
        place = (batch * (f.width - 1) + f.width - 1 + i) * f.channels
        target = shifted(pointer(f.grad_initial_state, like), place + first)
    else:
        t = f.length - 1 - i if step < 0 else i
        target = shifted(pointer(f.grad_x, like), (batch * f.length + t) * f.channels + first)
    for j in range(0, count, lanes):
        value = splat(like)
        for back in range(max(0, -i), min(f.width, latest - i + 1, ended - i)):
            value = fma(load_all(taps, back * row + j), load_all(ring, (i + back) % f.width * row + j), value)
        # A place in the tail handed on is one more output that saw this input.
        place = f.width - 2 - (f.length - 1 - i)
        if f.grad_final_state != 0 and place >= 0 and ended >= f.length:
            source = shifted(pointer(f.grad_final_state, like), (batch * (f.width - 1) + place) * f.channels + first)
            value = add(value, load(source, j, count - j))
        store(target, j, value, count - j)


@njit(error_model="numpy")
def _run_end(f, batch, i, step):
    """Where, within reach of `i`, the run of equal sequence indices that holds `i` ends; `length` if it goes on."""
    if f.seq_idx == 0:
        return f.length
    start = max(i, 0)
    for later in range(start + 1, min(i + f.width, f.length)):
        t = f.length - 1 - later if step < 0 else later
        if _changes(f, batch, later, t, step):
            return later
    return f.length


@njit(error_model="numpy")
def _backward_block(f, like, scratch, batch, first, count, reverse):
    lanes, length, width = lane_count(like), f.length, f.width
    row = (count + lanes - 1) // lanes * lanes
    bias, taps = scratch, shifted(scratch, row)
    ring, d_taps = shifted(taps, width * row), shifted(taps, 2 * width * row)
    d_bias = shifted(taps, 3 * width * row)
    _spread_bias(bias, f, first, count, like)
    _spread_taps(taps, f, first, count, like)
    for j in range(0, width * row, lanes):
        store_all(ring, j, splat(like))
        store_all(d_taps, j, splat(like))
    for j in range(0, row, lanes):
        store_all(d_bias, j, splat(like))

    step = -1 if reverse else 1
    before = width - 1 if f.initial_state != 0 else 0
    x = shifted(pointer(f.x, like), batch * f.x_batch + first)
    grad_y = shifted(pointer(f.grad_y, like), batch * f.grad_y_batch + first)
    reach = before
    for i in range(length):
        t = length - 1 - i if reverse else i
        reach = _taps_in_reach(f, reach, _changes(f, batch, i, t, step))
        for j in range(0, count, lanes):
            left = count - j
            prefetch(x, (t + _ROWS_AHEAD * step) * f.x_step + j)
            prefetch(grad_y, (t + _ROWS_AHEAD * step) * f.grad_y_step + j)
            grad = load(grad_y, t * f.grad_y_step + j, left)
            if f.silu:
                value = _convolve(f, like, taps, bias, batch, first, j, row, left, i, reach, step)
                grad = mul(grad, silu_slope(value))
            store_all(ring, i % width * row + j, grad)
            store_all(d_bias, j, add(load_all(d_bias, j), grad))
            for back in range(reach):
                seen = load(_input_row(f, like, batch, first, i - back, step), j, left)
                store_all(d_taps, back * row + j, fma(grad, seen, load_all(d_taps, back * row + j)))
        done = i - width + 1
        if done >= -before:
            ended = _run_end(f, batch, done, step)
            _emit_input_gradient(f, like, taps, ring, batch, first, count, row, done, i, ended, step)
    for done in range(max(length - width + 1, -before), length):
        ended = _run_end(f, batch, done, step)
        _emit_input_gradient(f, like, taps, ring, batch, first, count, row, done, length - 1, ended, step)

    for c in range(count):
        place = batch * f.channels + first + c
        put(pointer(f.bias_parts, like), place, get(d_bias, c))
        for back in range(width):
            put(pointer(f.weight_parts, like), place * width + width - 1 - back, get(d_taps, back * row + c))


@njit(error_model="numpy")
def _run_forward(counters, f, like):
    scratch = shifted(pointer(f.scratch, like), take(counters, 1) * f.scratch_size)
    while True:
        task = take(counters, 0)
        if task >= f.tasks:
            return
        block = shifted(pointer(f.blocks, _INT64), (task % f.block_count) * _BLOCK_FIELDS)
        _forward_block(f, like, scratch, task // f.block_count, get(block, 0), get(block, 1), get(block, 3) != 0)


@njit(error_model="numpy")
def _run_backward(counters, f, like):
    scratch = shifted(pointer(f.scratch, like), take(counters, 1) * f.scratch_size)
    while True:
        task = take(counters, 0)
        if task >= f.tasks:
            return
        block = shifted(pointer(f.blocks, _INT64), (task % f.block_count) * _BLOCK_FIELDS)
        _backward_block(f, like, scratch, task // f.block_count, get(block, 0), get(block, 1), get(block, 3) != 0)


def forward_scratch(row: int, width: int) -> int:
    """Elements of scratch that one thread of the forward kernel needs for blocks of `row` lanes."""
    return row * (width + 1)


def backward_scratch(row: int, width: int) -> int:
    """Elements of scratch that one thread of the backward kernel needs for blocks of `row` lanes."""
    return row * (3 * width + 2)


def _build_forward(like, digest):
    def conv_forward(record):
        _ = digest  # closed over, so that the cache key follows the sources
        _run_forward(integers(record), carray(record, 1)[0], like)

    return conv_forward


def _build_backward(like, digest):
    def conv_backward(record):
        _ = digest
        _run_backward(integers(record), carray(record, 1)[0], like)

    return conv_backward


conv_forward = Kernel("conv_forward", ConvFields, _build_forward, (__file__,))
conv_backward = Kernel("conv_backward", ConvFields, _build_backward, (__file__,))
