"""The two loops of the CPU convolution: forward and backward, with channels in the vector lanes.

A block of channels walks the sequence once, in the chunks of `cpu_chunks`. Backward recomputes the value before SiLU.
An input's gradient is the same sum with the taps turned round, over the gradients of the `width - 1` positions behind
it, so it is written that many positions later.

`like` is a number of the element type, `f` the record of `ConvFields`.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import carray, njit

from genossm_kernels._cpu.elementary import silu, silu_slope
from genossm_kernels._cpu.kernel import Kernel
from genossm_kernels._cpu.lanes import (
    add,
    clear,
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
from genossm_kernels.causal_conv1d import cpu_chunks
from genossm_kernels.causal_conv1d.cpu_chunks import (
    AT_ONCE,
    BLOCK_FIELDS,
    CHUNK,
    INT64,
    advance,
    correlate,
    run_end,
    slide,
    spread_taps,
    stage,
)


class ConvFields(NamedTuple):
    """Addresses (0 where there is no such tensor), strides in elements, and sizes.

    rows: vectors for the inputs of a chunk, and for its gradients.   weight_rows: vectors for the taps' gradients.
    """

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
    rows: int
    weight_rows: int
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


@njit(error_model="numpy", inline="always")
def _forward_block(f, like, scratch, batch, first, count, reverse):
    lanes, width, before, length = lane_count(like), f.width, f.width - 1, f.length
    vectors, size = (count + lanes - 1) // lanes, f.rows * lanes
    clear(scratch, f.scratch_size // lanes)
    sums, staged = scratch, shifted(scratch, CHUNK * lanes)
    taps = shifted(staged, vectors * size)
    spread_taps(taps, f, first, count, False, like)
    hop, y_hop, start = (-f.x_step, -f.channels, length - 1) if reverse else (f.x_step, f.channels, 0)
    x = shifted(pointer(f.x, like), batch * f.x_batch + start * f.x_step + first)
    y = shifted(pointer(f.y, like), (batch * length + start) * f.channels + first)
    bias = shifted(pointer(f.bias, like), first)
    state = shifted(pointer(f.initial_state, like), batch * before * f.channels + first)
    tail = shifted(pointer(f.final_state, like), batch * before * f.channels + first)
    if f.initial_state != 0:
        for v in range(vectors):
            j = v * lanes
            stage(shifted(staged, v * size), shifted(state, j), f.channels, before, count - j, like)
    i = 0
    while i < length:
        end = run_end(f, batch, i, reverse)
        while i < end:
            chunk = CHUNK if i + CHUNK < end else end - i
            for v in range(vectors):
                j, left, own = v * lanes, count - v * lanes, shifted(staged, v * size)
                stage(shifted(own, before * lanes), shifted(x, i * hop + j), hop, chunk, left, like)
                offset = load(bias, j, left) if f.bias != 0 else splat(like)
                slide(sums, own, shifted(taps, j * width), offset, chunk, width, like)
                for p in range(chunk):
                    out = load_all(sums, p * lanes)
                    if f.silu:
                        out = silu(out)
                    store(y, (i + p) * y_hop + j, out, left)
                advance(own, chunk, before, like)
            i += chunk
        if end < length:
            clear(staged, vectors * f.rows)
    # What the next position would see is handed on.
    for v in range(vectors):
        for k in range(before):
            value = load_all(staged, v * size + k * lanes)
            store(tail, k * f.channels + v * lanes, value, count - v * lanes)


@njit(error_model="numpy")
def _activation_gradients(f, like, grads, sums, grad_y, hop, count, left):
    """grads[p] = grad_y[p], times the slope of SiLU where there is one; gives their sum."""
    lanes = lane_count(like)
    total = splat(like)
    for p in range(count):
        grad = load(grad_y, p * hop, left)
        prefetch(grad_y, (p + CHUNK) * hop)
        if f.silu:
            grad = mul(grad, silu_slope(load_all(sums, p * lanes)))
        store_all(grads, p * lanes, grad)
        total = add(total, grad)
    return total


@njit(error_model="numpy")
def _write_gradients(f, like, sums, batch, channel, left, start, count, lowest, in_tail, reverse):
    """Write the gradients of one vector's inputs `start ... start + count`, of those from `lowest` on.

    in_tail: whether the last inputs of the sequence are among them: the tail handed on is one more that saw them.
    """
    lanes, before = lane_count(like), f.width - 1
    grad_tail = shifted(pointer(f.grad_final_state, like), batch * before * f.channels + channel)
    for p in range(count):
        i = start + p
        if i < lowest:
            continue
        value = load_all(sums, p * lanes)
        if in_tail:
            value = add(value, load(grad_tail, (before - f.length + i) * f.channels, left))
        if i < 0:
            target, row = pointer(f.grad_initial_state, like), batch * before + before + i
        else:
            target, row = pointer(f.grad_x, like), batch * f.length + (f.length - 1 - i if reverse else i)
        store(target, row * f.channels + channel, value, left)


@njit(error_model="numpy", inline="always")
def _backward_block(f, like, scratch, batch, first, count, reverse):
    lanes, width, before, length = lane_count(like), f.width, f.width - 1, f.length
    vectors, size = (count + lanes - 1) // lanes, f.rows * lanes
    clear(scratch, f.scratch_size // lanes)
    sums, staged = scratch, shifted(scratch, CHUNK * lanes)
    grads = shifted(staged, vectors * size)
    taps = shifted(grads, vectors * size)
    turned = shifted(taps, vectors * width * lanes)
    d_taps = shifted(turned, vectors * width * lanes)
    d_bias = shifted(d_taps, vectors * f.weight_rows * lanes)
    spread_taps(taps, f, first, count, False, like)
    spread_taps(turned, f, first, count, True, like)
    hop, y_hop, start = (-f.x_step, -f.grad_y_step, length - 1) if reverse else (f.x_step, f.grad_y_step, 0)
    x = shifted(pointer(f.x, like), batch * f.x_batch + start * f.x_step + first)
    grad_y = shifted(pointer(f.grad_y, like), batch * f.grad_y_batch + start * f.grad_y_step + first)
    bias = shifted(pointer(f.bias, like), first)
    state = shifted(pointer(f.initial_state, like), batch * before * f.channels + first)
    begin, lowest = 0, 0
    if f.initial_state != 0:
        lowest = -before
        for v in range(vectors):
            j = v * lanes
            stage(shifted(staged, v * size), shifted(state, j), f.channels, before, count - j, like)
    while begin < length:
        end = run_end(f, batch, begin, reverse)
        i = begin
        # The gradients of a run's last inputs come out as `before` positions without gradients pass behind it.
        while i < end + before:
            inside = i < end
            limit = end if inside else end + before
            chunk = CHUNK if i + CHUNK < limit else limit - i
            in_tail = f.grad_final_state != 0 and end == length and not inside
            for v in range(vectors):
                j, left, own, given = v * lanes, count - v * lanes, shifted(staged, v * size), shifted(grads, v * size)
                now = shifted(given, before * lanes)
                if inside:
                    stage(shifted(own, before * lanes), shifted(x, i * hop + j), hop, chunk, left, like)
                    offset = load(bias, j, left) if f.bias != 0 else splat(like)
                    slide(sums, own, shifted(taps, j * width), offset, chunk, width, like)
                    total = _activation_gradients(
                        f, like, now, sums, shifted(grad_y, i * y_hop + j), y_hop, chunk, left
                    )
                    store_all(d_bias, j, add(load_all(d_bias, j), total))
                    correlate(shifted(d_taps, j * f.weight_rows), now, own, chunk, width, like)
                    advance(own, chunk, before, like)
                else:
                    clear(now, chunk)
                slide(sums, given, shifted(turned, j * width), splat(like), chunk, width, like)
                _write_gradients(f, like, sums, batch, first + j, left, i - before, chunk, lowest, in_tail, reverse)
                advance(given, chunk, before, like)
            i += chunk
        clear(staged, vectors * f.rows)
        begin, lowest = end, end

    for c in range(count):
        place = batch * f.channels + first + c
        put(pointer(f.bias_parts, like), place, get(d_bias, c))
        for k in range(width):
            row = c // lanes * f.weight_rows + k
            put(pointer(f.weight_parts, like), place * width + k, get(d_taps, row * lanes + c % lanes))


@njit(error_model="numpy", inline="always")
def _run_forward(counters, f, like):
    scratch = shifted(pointer(f.scratch, like), take(counters, 1) * f.scratch_size)
    while True:
        task = take(counters, 0)
        if task >= f.tasks:
            return
        block = shifted(pointer(f.blocks, INT64), (task % f.block_count) * BLOCK_FIELDS)
        _forward_block(f, like, scratch, task // f.block_count, get(block, 0), get(block, 1), get(block, 3) != 0)


@njit(error_model="numpy", inline="always")
def _run_backward(counters, f, like):
    scratch = shifted(pointer(f.scratch, like), take(counters, 1) * f.scratch_size)
    while True:
        task = take(counters, 0)
        if task >= f.tasks:
            return
        block = shifted(pointer(f.blocks, INT64), (task % f.block_count) * BLOCK_FIELDS)
        _backward_block(f, like, scratch, task // f.block_count, get(block, 0), get(block, 1), get(block, 3) != 0)


def staged_rows(width: int) -> int:
    """Vectors that a chunk takes with what comes before it, and what the last group of sums reads beyond it."""
    return width - 1 + CHUNK + AT_ONCE


def weight_rows(width: int) -> int:
    """Taps in whole groups of sums."""
    return -(-width // AT_ONCE) * AT_ONCE


def forward_scratch(lanes: int, vectors: int, width: int) -> int:
    """Elements of scratch that one thread of the forward kernel needs for blocks of `vectors` vectors."""
    return lanes * (CHUNK + vectors * (staged_rows(width) + width))


def backward_scratch(lanes: int, vectors: int, width: int) -> int:
    """Elements of scratch that one thread of the backward kernel needs for blocks of `vectors` vectors."""
    return lanes * (CHUNK + vectors * (2 * staged_rows(width) + 2 * width + weight_rows(width) + 1))


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


conv_forward = Kernel("conv_forward", ConvFields, _build_forward, (__file__, cpu_chunks.__file__))
conv_backward = Kernel("conv_backward", ConvFields, _build_backward, (__file__, cpu_chunks.__file__))
