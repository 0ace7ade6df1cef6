"""The three loops of the CPU scan: forward, backward, and the short steps of decoding.

Forward and backward put channels in the lanes: a block of channels walks the sequence with its states beside
it in the first-level cache, B and C are broadcast, and no sum runs across lanes. A step has no sequence to
pay for turning the states around, so it puts states in the lanes. README.md has derivation and counts.

The arithmetic is written once for float32 and float64: `like` is a number of the element type. `f` is the
record of `ScanFields`. Within a block, vector v of state n lies at lane (v * states + n) * width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import carray, njit

from genossm_kernels._cpu.elementary import exp, sigmoid, silu, silu_slope, softplus
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
    total,
)

_INT32, _INT64 = np.int32(0), np.int64(0)
_BLOCK_FIELDS = 6
_ROWS_AHEAD = 8  # rows lie further apart than hardware prefetchers look


class ScanFields(NamedTuple):
    """Addresses (0 where there is no such tensor), strides in elements, and sizes."""

    u: int
    delta: int
    A: int
    B: int
    C: int
    D: int
    z: int
    delta_bias: int
    initial_state: int
    seq_idx: int
    u_batch: int
    u_step: int
    delta_batch: int
    delta_step: int
    B_batch: int
    B_step: int
    B_group: int
    C_batch: int
    C_step: int
    C_group: int
    z_batch: int
    z_step: int
    delta_softplus: int
    length: int
    channels: int
    states: int
    groups: int
    blocks: int
    block_count: int
    lanes: int
    tasks: int
    chunk: int
    scratch: int
    scratch_size: int
    checkpoints: int
    y: int = 0
    final_state: int = 0
    grad_y: int = 0
    grad_y_batch: int = 0
    grad_y_step: int = 0
    grad_final_state: int = 0
    grad_u: int = 0
    grad_delta: int = 0
    grad_z: int = 0
    A_parts: int = 0
    B_parts: int = 0
    C_parts: int = 0
    D_parts: int = 0
    bias_parts: int = 0
    grad_initial_state: int = 0
    parts_stride: int = 0


@njit(error_model="numpy")
def _fill(target, count, value):
    """Set `count` vectors."""
    width = lane_count(value)
    for i in range(count):
        store_all(target, i * width, splat(value))


@njit(error_model="numpy")
def _copy(target, source, count, like):
    """Copy `count` vectors."""
    width = lane_count(like)
    for i in range(count):
        store_all(target, i * width, load_all(source, i * width))


@njit(error_model="numpy")
def _add_and_clear(target, source, count, like):
    """Add `count` vectors of `source` to `target` and set them to zero."""
    width = lane_count(like)
    for i in range(count):
        j = i * width
        store_all(target, j, add(load_all(target, j), load_all(source, j)))
        store_all(source, j, splat(like))


@njit(error_model="numpy")
def _spread_states(target, source, count, states, like):
    """(channels, states) in memory -> channels in lanes; lanes without a channel become zero."""
    width = lane_count(like)
    vectors = (count + width - 1) // width
    _fill(target, vectors * states, like)
    for c in range(count):
        base = (c // width) * states * width + c % width
        for n in range(states):
            put(target, base + n * width, get(source, c * states + n))


@njit(error_model="numpy")
def _gather_states(target, source, count, states, like):
    """Channels in lanes -> (channels, states) in memory."""
    width = lane_count(like)
    for c in range(count):
        base = (c // width) * states * width + c % width
        for n in range(states):
            put(target, c * states + n, get(source, base + n * width))


@njit(error_model="numpy")
def _spread_channels(target, address, first, count, like):
    """Parameters of `count` channels -> lanes; zero where there are none."""
    width = lane_count(like)
    vectors = (count + width - 1) // width
    for v in range(vectors):
        if address == 0:
            store_all(target, v * width, splat(like))
        else:
            source = pointer(address, like)
            store_all(target, v * width, load(source, first + v * width, count - v * width))


@njit(error_model="numpy")
def _starts_anew(seq_idx, row, i, t, step):
    """Whether the sequence index changes between the position processed before and `t`."""
    if seq_idx == 0 or i == 0:
        return False
    numbers = pointer(seq_idx, _INT32)
    return get(numbers, row + t) != get(numbers, row + t - step)


# --- forward -----------------------------------------------------------------------------------------------------


@njit(error_model="numpy")
def _forward_block(f, like, scratch, batch, first, count, group, reverse, lane):
    width, states, length = lane_count(like), f.states, f.length
    vectors = (count + width - 1) // width
    rates = scratch
    state = shifted(rates, vectors * states * width)
    bias = shifted(state, vectors * states * width)
    skip = shifted(bias, vectors * width)
    _spread_states(rates, shifted(pointer(f.A, like), first * states), count, states, like)
    _spread_channels(bias, f.delta_bias, first, count, like)
    _spread_channels(skip, f.D, first, count, like)
    corner = (batch * f.channels + first) * states
    if f.initial_state != 0:
        _spread_states(state, shifted(pointer(f.initial_state, like), corner), count, states, like)
    else:
        _fill(state, vectors * states, like)

    u = shifted(pointer(f.u, like), batch * f.u_batch + first)
    delta = shifted(pointer(f.delta, like), batch * f.delta_batch + first)
    z = shifted(pointer(f.z, like), batch * f.z_batch + first)
    B = shifted(pointer(f.B, like), batch * f.B_batch + group * f.B_group)
    C = shifted(pointer(f.C, like), batch * f.C_batch + group * f.C_group)
    y = shifted(pointer(f.y, like), batch * length * f.channels + first)
    step = -1 if reverse else 1
    chunks = (length + f.chunk - 1) // f.chunk
    for chunk in range(chunks):
        if f.checkpoints != 0:
            place = ((batch * chunks + chunk) * f.lanes + lane) * states
            _copy(shifted(pointer(f.checkpoints, like), place), state, vectors * states, like)
        for i in range(chunk * f.chunk, min(length, (chunk + 1) * f.chunk)):
            t = length - 1 - i if reverse else i
            if _starts_anew(f.seq_idx, batch * length, i, t, step):
                _fill(state, vectors * states, like)
            ahead = t + _ROWS_AHEAD * step
            for v in range(vectors):
                j, left = v * width, count - v * width
                prefetch(u, ahead * f.u_step + j)
                prefetch(delta, ahead * f.delta_step + j)
                if f.z != 0:
                    prefetch(z, ahead * f.z_step + j)
                u_now = load(u, t * f.u_step + j, left)
                dt = add(load(delta, t * f.delta_step + j, left), load_all(bias, j))
                if f.delta_softplus:
                    dt = softplus(dt)
                drive = mul(dt, u_now)
                out = mul(load_all(skip, j), u_now)
                for n in range(states):
                    k = (v * states + n) * width
                    decay = exp(mul(dt, load_all(rates, k)))
                    drift = mul(drive, splat(get(B, t * f.B_step + n)))
                    h = fma(decay, load_all(state, k), drift)
                    store_all(state, k, h)
                    out = fma(h, splat(get(C, t * f.C_step + n)), out)
                if f.z != 0:
                    out = mul(out, silu(load(z, t * f.z_step + j, left)))
                store(y, t * f.channels + j, out, left)
    _gather_states(shifted(pointer(f.final_state, like), corner), state, count, states, like)


@njit(error_model="numpy")
def _run_forward(counters, f, like):
    scratch = shifted(pointer(f.scratch, like), take(counters, 1) * f.scratch_size)
    blocks = pointer(f.blocks, _INT64)
    while True:
        task = take(counters, 0)
        if task >= f.tasks:
            return
        block = shifted(blocks, (task % f.block_count) * _BLOCK_FIELDS)
        first, count, group = get(block, 0), get(block, 1), get(block, 2)
        _forward_block(f, like, scratch, task // f.block_count, first, count, group, get(block, 3) != 0, get(block, 4))


# --- backward ----------------------------------------------------------------------------------------------------


@njit(error_model="numpy")
def _replay_chunk(f, like, space, batch, first, count, group, reverse, slot, start, stop):
    """Walk a chunk again: keep what `_unwind_chunk` needs; gradients of z, C and D fall out on the way."""
    rates, state, bias, skip, d_skip, sums, before, decays, steps, drives, grads = space
    width, states, length = lane_count(like), f.states, f.length
    vectors = (count + width - 1) // width
    u = shifted(pointer(f.u, like), batch * f.u_batch + first)
    delta = shifted(pointer(f.delta, like), batch * f.delta_batch + first)
    z = shifted(pointer(f.z, like), batch * f.z_batch + first)
    B = shifted(pointer(f.B, like), batch * f.B_batch + group * f.B_group)
    C = shifted(pointer(f.C, like), batch * f.C_batch + group * f.C_group)
    grad_y = shifted(pointer(f.grad_y, like), batch * f.grad_y_batch + first)
    grad_z = shifted(pointer(f.grad_z, like), batch * length * f.channels + first)
    C_parts = shifted(pointer(f.C_parts, like), slot * f.parts_stride + (batch * length * f.groups + group) * states)
    step = -1 if reverse else 1
    for i in range(start, stop):
        t = length - 1 - i if reverse else i
        if _starts_anew(f.seq_idx, batch * length, i, t, step):
            _fill(state, vectors * states, like)
        _fill(sums, states, like)
        for v in range(vectors):
            j, left = v * width, count - v * width
            row = ((i - start) * vectors + v) * width
            u_now = load(u, t * f.u_step + j, left)
            dt = add(load(delta, t * f.delta_step + j, left), load_all(bias, j))
            if f.delta_softplus:
                dt = softplus(dt)
            drive = mul(dt, u_now)
            grad_gated = load(grad_y, t * f.grad_y_step + j, left)
            grad = grad_gated
            if f.z != 0:
                grad = mul(grad_gated, silu(load(z, t * f.z_step + j, left)))
            store_all(steps, row, dt)
            store_all(drives, row, drive)
            store_all(grads, row, grad)
            store_all(d_skip, j, fma(grad, u_now, load_all(d_skip, j)))
            out = mul(load_all(skip, j), u_now)
            for n in range(states):
                k = (v * states + n) * width
                kept = ((i - start) * vectors * states) * width + k
                h = load_all(state, k)
                store_all(before, kept, h)
                decay = exp(mul(dt, load_all(rates, k)))
                store_all(decays, kept, decay)
                h = fma(decay, h, mul(drive, splat(get(B, t * f.B_step + n))))
                store_all(state, k, h)
                out = fma(h, splat(get(C, t * f.C_step + n)), out)
                store_all(sums, n * width, fma(grad, h, load_all(sums, n * width)))
            if f.z != 0:
                slope = silu_slope(load(z, t * f.z_step + j, left))
                store(grad_z, t * f.channels + j, mul(mul(grad_gated, out), slope), left)
        for n in range(states):
            put(C_parts, t * f.groups * states + n, total(load_all(sums, n * width)))


@njit(error_model="numpy")
def _unwind_chunk(f, like, space, batch, first, count, group, reverse, slot, start, stop):
    """Carry the gradient of the state back through a chunk that `_replay_chunk` has walked."""
    rates, carry, bias, skip, d_rates, d_bias, sums, before, decays, steps, drives, grads = space
    width, states, length = lane_count(like), f.states, f.length
    vectors = (count + width - 1) // width
    u = shifted(pointer(f.u, like), batch * f.u_batch + first)
    delta = shifted(pointer(f.delta, like), batch * f.delta_batch + first)
    B = shifted(pointer(f.B, like), batch * f.B_batch + group * f.B_group)
    C = shifted(pointer(f.C, like), batch * f.C_batch + group * f.C_group)
    grad_u = shifted(pointer(f.grad_u, like), batch * length * f.channels + first)
    grad_delta = shifted(pointer(f.grad_delta, like), batch * length * f.channels + first)
    B_parts = shifted(pointer(f.B_parts, like), slot * f.parts_stride + (batch * length * f.groups + group) * states)
    step = -1 if reverse else 1
    for i in range(stop - 1, start - 1, -1):
        t = length - 1 - i if reverse else i
        _fill(sums, states, like)
        for v in range(vectors):
            j, left = v * width, count - v * width
            row = ((i - start) * vectors + v) * width
            dt, drive, grad = load_all(steps, row), load_all(drives, row), load_all(grads, row)
            d_dt, d_drive = splat(like), splat(like)
            for n in range(states):
                k = (v * states + n) * width
                kept = ((i - start) * vectors * states) * width + k
                d_h = fma(grad, splat(get(C, t * f.C_step + n)), load_all(carry, k))
                store_all(sums, n * width, fma(d_h, drive, load_all(sums, n * width)))
                d_drive = fma(d_h, splat(get(B, t * f.B_step + n)), d_drive)
                d_before = mul(load_all(decays, kept), d_h)
                store_all(carry, k, d_before)
                d_exponent = mul(d_before, load_all(before, kept))
                d_dt = fma(d_exponent, load_all(rates, k), d_dt)
                store_all(d_rates, k, fma(d_exponent, dt, load_all(d_rates, k)))
            u_now = load(u, t * f.u_step + j, left)
            d_dt = fma(d_drive, u_now, d_dt)
            if f.delta_softplus:
                d_dt = mul(d_dt, sigmoid(add(load(delta, t * f.delta_step + j, left), load_all(bias, j))))
            store_all(d_bias, j, add(d_dt, load_all(d_bias, j)))
            store(grad_delta, t * f.channels + j, d_dt, left)
            store(grad_u, t * f.channels + j, fma(d_drive, dt, mul(grad, load_all(skip, j))), left)
        if _starts_anew(f.seq_idx, batch * length, i, t, step):
            _fill(carry, vectors * states, like)
        for n in range(states):
            put(B_parts, t * f.groups * states + n, total(load_all(sums, n * width)))


@njit(error_model="numpy")
def _backward_block(f, like, scratch, batch, first, count, group, reverse, lane, slot):
    width, states, length = lane_count(like), f.states, f.length
    vectors = (count + width - 1) // width
    block, row = vectors * states * width, vectors * width
    rates = scratch
    state, carry = shifted(rates, block), shifted(rates, 2 * block)
    # Sums over the sequence are taken chunk by chunk and then over chunks: far smaller rounding errors.
    d_rates, d_rates_sum = shifted(rates, 3 * block), shifted(rates, 4 * block)
    bias = shifted(rates, 5 * block)
    skip, d_bias, d_skip = shifted(bias, row), shifted(bias, 2 * row), shifted(bias, 3 * row)
    d_bias_sum, d_skip_sum = shifted(bias, 4 * row), shifted(bias, 5 * row)
    sums = shifted(bias, 6 * row)
    steps = shifted(sums, states * width)
    drives, grads = shifted(steps, f.chunk * row), shifted(steps, 2 * f.chunk * row)
    before = shifted(steps, 3 * f.chunk * row)
    decays = shifted(before, f.chunk * block)

    corner = (batch * f.channels + first) * states
    _spread_states(rates, shifted(pointer(f.A, like), first * states), count, states, like)
    _spread_channels(bias, f.delta_bias, first, count, like)
    _spread_channels(skip, f.D, first, count, like)
    _fill(d_rates, 2 * vectors * states, like)
    _fill(d_bias, 4 * vectors, like)
    if f.grad_final_state != 0:
        _spread_states(carry, shifted(pointer(f.grad_final_state, like), corner), count, states, like)
    else:
        _fill(carry, vectors * states, like)

    chunks = (length + f.chunk - 1) // f.chunk
    for chunk in range(chunks - 1, -1, -1):
        start, stop = chunk * f.chunk, min(length, (chunk + 1) * f.chunk)
        place = ((batch * chunks + chunk) * f.lanes + lane) * states
        _copy(state, shifted(pointer(f.checkpoints, like), place), vectors * states, like)
        replay = (rates, state, bias, skip, d_skip, sums, before, decays, steps, drives, grads)
        _replay_chunk(f, like, replay, batch, first, count, group, reverse, slot, start, stop)
        unwind = (rates, carry, bias, skip, d_rates, d_bias, sums, before, decays, steps, drives, grads)
        _unwind_chunk(f, like, unwind, batch, first, count, group, reverse, slot, start, stop)
        _add_and_clear(d_rates_sum, d_rates, vectors * states, like)
        _add_and_clear(d_bias_sum, d_bias, vectors, like)
        _add_and_clear(d_skip_sum, d_skip, vectors, like)

    _gather_states(shifted(pointer(f.A_parts, like), corner), d_rates_sum, count, states, like)
    _gather_states(shifted(pointer(f.grad_initial_state, like), corner), carry, count, states, like)
    part_bias = shifted(pointer(f.bias_parts, like), batch * f.channels + first)
    part_skip = shifted(pointer(f.D_parts, like), batch * f.channels + first)
    for v in range(vectors):
        j, left = v * width, count - v * width
        store(part_bias, j, load_all(d_bias_sum, j), left)
        store(part_skip, j, load_all(d_skip_sum, j), left)


@njit(error_model="numpy")
def _run_backward(counters, f, like):
    scratch = shifted(pointer(f.scratch, like), take(counters, 1) * f.scratch_size)
    blocks = pointer(f.blocks, _INT64)
    while True:
        task = take(counters, 0)
        if task >= f.tasks:
            return
        block = shifted(blocks, (task % f.block_count) * _BLOCK_FIELDS)
        first, count, group, reverse = get(block, 0), get(block, 1), get(block, 2), get(block, 3) != 0
        batch, lane, slot = task // f.block_count, get(block, 4), get(block, 5)
        _backward_block(f, like, scratch, batch, first, count, group, reverse, lane, slot)


def backward_scratch(width: int, vectors: int, states: int, chunk: int) -> int:
    """Elements of scratch that one thread of the backward kernel needs."""
    block, row = vectors * states * width, vectors * width
    return (5 + 2 * chunk) * block + (6 + 3 * chunk) * row + states * width


def forward_scratch(width: int, vectors: int, states: int) -> int:
    """Elements of scratch that one thread of the forward kernel needs."""
    return 2 * vectors * width * (states + 1)


# --- steps -------------------------------------------------------------------------------------------------------


@njit(error_model="numpy")
def _step_states(f, like, c, dt, drive, B, C, state):
    """Advance the states of one channel by one position: its output without skip and gate."""
    width, states = lane_count(like), f.states
    A = shifted(pointer(f.A, like), c * states)
    out = splat(like)
    for n in range(0, states, width):
        left = states - n
        decay = exp(mul(splat(dt), load(A, n, left)))
        h = fma(decay, load(state, n, left), mul(splat(drive), load(B, n, left)))
        store(state, n, h, left)
        out = fma(h, load(C, n, left), out)
    return total(out)


@njit(error_model="numpy")
def _step_block(f, like, scratch, batch, first, count, group, reverse):
    width, states, length = lane_count(like), f.states, f.length
    vectors = (count + width - 1) // width
    steps, drives, outs = scratch, shifted(scratch, vectors * width), shifted(scratch, 2 * vectors * width)
    bias, skip = shifted(scratch, 3 * vectors * width), shifted(scratch, 4 * vectors * width)
    _spread_channels(bias, f.delta_bias, first, count, like)
    _spread_channels(skip, f.D, first, count, like)
    corner = (batch * f.channels + first) * states
    state = shifted(pointer(f.final_state, like), corner)
    for k in range(count * states):
        put(state, k, get(pointer(f.initial_state, like), corner + k) if f.initial_state != 0 else like)

    step = -1 if reverse else 1
    for i in range(length):
        t = length - 1 - i if reverse else i
        if _starts_anew(f.seq_idx, batch * length, i, t, step):
            for k in range(count * states):
                put(state, k, like)
        u = shifted(pointer(f.u, like), batch * f.u_batch + t * f.u_step + first)
        delta = shifted(pointer(f.delta, like), batch * f.delta_batch + t * f.delta_step + first)
        z = shifted(pointer(f.z, like), batch * f.z_batch + t * f.z_step + first)
        B = shifted(pointer(f.B, like), batch * f.B_batch + t * f.B_step + group * f.B_group)
        C = shifted(pointer(f.C, like), batch * f.C_batch + t * f.C_step + group * f.C_group)
        y = shifted(pointer(f.y, like), (batch * length + t) * f.channels + first)
        for v in range(vectors):
            j, left = v * width, count - v * width
            dt = add(load(delta, j, left), load_all(bias, j))
            if f.delta_softplus:
                dt = softplus(dt)
            store_all(steps, j, dt)
            store_all(drives, j, mul(dt, load(u, j, left)))
        for c in range(count):
            own = shifted(state, c * states)
            put(outs, c, _step_states(f, like, first + c, get(steps, c), get(drives, c), B, C, own))
        for v in range(vectors):
            j, left = v * width, count - v * width
            out = fma(load_all(skip, j), load(u, j, left), load(outs, j, left))
            if f.z != 0:
                out = mul(out, silu(load(z, j, left)))
            store(y, j, out, left)


@njit(error_model="numpy")
def _run_steps(counters, f, like):
    scratch = shifted(pointer(f.scratch, like), take(counters, 1) * f.scratch_size)
    blocks = pointer(f.blocks, _INT64)
    while True:
        task = take(counters, 0)
        if task >= f.tasks:
            return
        block = shifted(blocks, (task % f.block_count) * _BLOCK_FIELDS)
        first, count, group, reverse = get(block, 0), get(block, 1), get(block, 2), get(block, 3) != 0
        _step_block(f, like, scratch, task // f.block_count, first, count, group, reverse)


def steps_scratch(width: int, vectors: int) -> int:
    """Elements of scratch that one thread of the step kernel needs."""
    return 5 * vectors * width


# --- entries -----------------------------------------------------------------------------------------------------


def _build_forward(like, digest):
    def scan_forward(record):
        _ = digest  # closed over, so that the cache key follows the sources
        _run_forward(integers(record), carray(record, 1)[0], like)

    return scan_forward


def _build_backward(like, digest):
    def scan_backward(record):
        _ = digest
        _run_backward(integers(record), carray(record, 1)[0], like)

    return scan_backward


def _build_steps(like, digest):
    def scan_steps(record):
        _ = digest
        _run_steps(integers(record), carray(record, 1)[0], like)

    return scan_steps


scan_forward = Kernel("scan_forward", ScanFields, _build_forward, (__file__,))
scan_backward = Kernel("scan_backward", ScanFields, _build_backward, (__file__,))
scan_steps = Kernel("scan_steps", ScanFields, _build_steps, (__file__,))
