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
    clear,
    copy,
    element_size,
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
    sub,
    take,
    total,
    totals,
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
def _add_exactly(total, lost, j, value):
    """Add to a running sum that remembers what its last rounding lost (Kahan)."""
    value = sub(value, load_all(lost, j))
    before = load_all(total, j)
    after = add(before, value)
    store_all(lost, j, sub(sub(after, before), value))
    store_all(total, j, after)


@njit(error_model="numpy")
def _spread_states(target, source, count, states, like):
    """(channels, states) in memory -> channels in lanes; lanes without a channel become zero."""
    width = lane_count(like)
    vectors = (count + width - 1) // width
    clear(target, vectors * states)
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
        clear(state, vectors * states)

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
            copy(shifted(pointer(f.checkpoints, like), place), state, vectors * states)
        for i in range(chunk * f.chunk, min(length, (chunk + 1) * f.chunk)):
            t = length - 1 - i if reverse else i
            if _starts_anew(f.seq_idx, batch * length, i, t, step):
                clear(state, vectors * states)
            ahead = t + _ROWS_AHEAD * step
            B_now, C_now = shifted(B, t * f.B_step), shifted(C, t * f.C_step)
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
                    h = fma(decay, load_all(state, k), mul(drive, splat(get(B_now, n))))
                    store_all(state, k, h)
                    out = fma(h, splat(get(C_now, n)), out)
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
def _load_rows(f, like, rows, batch, channel, left, bias, skip, d_skip, start, stop, reverse):
    """For one vector of channels and a run of positions: steps, drives, gradients at the scan, and D u."""
    steps, drives, grads, outs = rows
    width = lane_count(like)
    u = shifted(pointer(f.u, like), batch * f.u_batch + channel)
    delta = shifted(pointer(f.delta, like), batch * f.delta_batch + channel)
    z = shifted(pointer(f.z, like), batch * f.z_batch + channel)
    grad_y = shifted(pointer(f.grad_y, like), batch * f.grad_y_batch + channel)
    chunk = -f.chunk if reverse else f.chunk
    for i in range(start, stop):
        t = f.length - 1 - i if reverse else i
        row = (i - start) * width
        coming = t - chunk
        prefetch(u, coming * f.u_step)
        prefetch(delta, coming * f.delta_step)
        prefetch(grad_y, coming * f.grad_y_step)
        if f.z != 0:
            prefetch(z, coming * f.z_step)
        u_now = load(u, t * f.u_step, left)
        dt = add(load(delta, t * f.delta_step, left), bias)
        if f.delta_softplus:
            dt = softplus(dt)
        grad = load(grad_y, t * f.grad_y_step, left)
        if f.z != 0:
            grad = mul(grad, silu(load(z, t * f.z_step, left)))
        store_all(steps, row, dt)
        store_all(drives, row, mul(dt, u_now))
        store_all(grads, row, grad)
        store_all(outs, row, mul(skip, u_now))
        d_skip = fma(grad, u_now, d_skip)
    return d_skip


@njit(error_model="numpy")
def _replay(like, rows, kept, B, B_step, C, C_step, rate, h, count):
    """Walk one state through a run again; keep its decays and the states before each step."""
    steps, drives, grads, outs = rows
    before, decays, products = kept
    width = lane_count(like)
    for i in range(count):
        row = i * width
        store_all(before, row, h)
        decay = exp(mul(load_all(steps, row), rate))
        store_all(decays, row, decay)
        h = fma(decay, h, mul(load_all(drives, row), splat(get(B, i * B_step))))
        store_all(outs, row, fma(h, splat(get(C, i * C_step)), load_all(outs, row)))
        store_all(products, row, mul(load_all(grads, row), h))


@njit(error_model="numpy")
def _unwind(like, rows, d_rows, kept, B, B_step, C, C_step, rate, carry, count):
    """Carry the gradient of one state back through a run: what leaves it, and the gradient of its rate."""
    steps, drives, grads, _ = rows
    d_steps, d_drives = d_rows
    before, decays, products = kept
    width = lane_count(like)
    d_rate = splat(like)
    for i in range(count - 1, -1, -1):
        row = i * width
        d_h = fma(load_all(grads, row), splat(get(C, i * C_step)), carry)
        store_all(products, row, mul(d_h, load_all(drives, row)))
        store_all(d_drives, row, fma(d_h, splat(get(B, i * B_step)), load_all(d_drives, row)))
        carry = mul(load_all(decays, row), d_h)
        d_exponent = mul(carry, load_all(before, row))
        store_all(d_steps, row, fma(d_exponent, rate, load_all(d_steps, row)))
        d_rate = fma(d_exponent, load_all(steps, row), d_rate)
    return carry, d_rate


@njit(error_model="numpy")
def _store_rows(f, like, rows, d_rows, batch, channel, left, bias, skip, d_bias, start, stop, reverse):
    """Gradients of u, delta and z for one vector of channels and a run of positions."""
    steps, _, grads, outs = rows
    d_steps, d_drives = d_rows
    width = lane_count(like)
    u = shifted(pointer(f.u, like), batch * f.u_batch + channel)
    delta = shifted(pointer(f.delta, like), batch * f.delta_batch + channel)
    z = shifted(pointer(f.z, like), batch * f.z_batch + channel)
    grad_y = shifted(pointer(f.grad_y, like), batch * f.grad_y_batch + channel)
    corner = batch * f.length * f.channels + channel
    grad_u, grad_delta = shifted(pointer(f.grad_u, like), corner), shifted(pointer(f.grad_delta, like), corner)
    grad_z = shifted(pointer(f.grad_z, like), corner)
    for i in range(start, stop):
        t = f.length - 1 - i if reverse else i
        row = (i - start) * width
        d_drive = load_all(d_drives, row)
        d_dt = fma(d_drive, load(u, t * f.u_step, left), load_all(d_steps, row))
        if f.delta_softplus:
            d_dt = mul(d_dt, sigmoid(add(load(delta, t * f.delta_step, left), bias)))
        d_bias = add(d_bias, d_dt)
        store(grad_delta, t * f.channels, d_dt, left)
        d_u = fma(d_drive, load_all(steps, row), mul(load_all(grads, row), skip))
        store(grad_u, t * f.channels, d_u, left)
        if f.z != 0:
            slope = silu_slope(load(z, t * f.z_step, left))
            d_z = mul(mul(load(grad_y, t * f.grad_y_step, left), load_all(outs, row)), slope)
            store(grad_z, t * f.channels, d_z, left)
    return d_bias


@njit(error_model="numpy")
def _add_totals(target, products, count):
    """Add the sum over lanes of each of `count` vectors to `target`; rows beyond `count` may hold anything."""
    width = lane_count(get(target, 0))
    for i in range(0, count, width):
        store_all(target, i, add(load_all(target, i), totals(shifted(products, i * width))))


@njit(error_model="numpy")
def _backward_run(f, like, space, batch, first, count, group, reverse, slot, start, stop, entering):
    """Gradients of a run of positions in which the state is never reset; `entering` is 0 if it starts from zero."""
    rates, carry, sums, lost, bias, skip, work = space
    width, states, length, steps = lane_count(like), f.states, f.length, stop - start
    vectors = (count + width - 1) // width
    d_rates, d_bias, d_skip = sums
    lost_rates, lost_bias, lost_skip = lost
    size = f.chunk * width
    rows = (work, shifted(work, size), shifted(work, 2 * size), shifted(work, 3 * size))
    d_rows = (shifted(work, 4 * size), shifted(work, 5 * size))
    kept = (shifted(work, 6 * size), shifted(work, 7 * size), shifted(work, 8 * size))
    sums_B, sums_C = shifted(work, 9 * size), shifted(work, 9 * size + states * f.chunk)
    clear(sums_B, 2 * states * f.chunk // width)

    t = length - 1 - start if reverse else start
    B = shifted(pointer(f.B, like), batch * f.B_batch + group * f.B_group + t * f.B_step)
    C = shifted(pointer(f.C, like), batch * f.C_batch + group * f.C_group + t * f.C_step)
    B_step, C_step = -f.B_step if reverse else f.B_step, -f.C_step if reverse else f.C_step
    for v in range(vectors):
        j, left, channel = v * width, count - v * width, first + v * width
        bias_now, skip_now = load_all(bias, j), load_all(skip, j)
        d_skip_now = _load_rows(
            f, like, rows, batch, channel, left, bias_now, skip_now, splat(like), start, stop, reverse
        )
        _add_exactly(d_skip, lost_skip, j, d_skip_now)
        clear(d_rows[0], 2 * f.chunk)
        for n in range(states):
            k = (v * states + n) * width
            rate = load_all(rates, k)
            h = splat(like)
            if entering != 0:
                h = load_all(pointer(entering, like), k)
            B_now, C_now = shifted(B, n), shifted(C, n)
            _replay(like, rows, kept, B_now, B_step, C_now, C_step, rate, h, steps)
            _add_totals(shifted(sums_C, n * f.chunk), kept[2], steps)
            leaving, d_rate = _unwind(
                like, rows, d_rows, kept, B_now, B_step, C_now, C_step, rate, load_all(carry, k), steps
            )
            _add_totals(shifted(sums_B, n * f.chunk), kept[2], steps)
            if entering == 0:
                leaving = splat(like)
            store_all(carry, k, leaving)
            _add_exactly(d_rates, lost_rates, k, d_rate)
        d_bias_now = _store_rows(
            f, like, rows, d_rows, batch, channel, left, bias_now, skip_now, splat(like), start, stop, reverse
        )
        _add_exactly(d_bias, lost_bias, j, d_bias_now)

    corner = slot * f.parts_stride + (batch * length * f.groups + group) * states
    for i in range(steps):
        t = length - 1 - start - i if reverse else start + i
        for n in range(states):
            put(pointer(f.B_parts, like), corner + t * f.groups * states + n, get(sums_B, n * f.chunk + i))
            put(pointer(f.C_parts, like), corner + t * f.groups * states + n, get(sums_C, n * f.chunk + i))


@njit(error_model="numpy")
def _backward_block(f, like, scratch, batch, first, count, group, reverse, lane, slot):
    width, states, length = lane_count(like), f.states, f.length
    vectors = (count + width - 1) // width
    block, row = vectors * states * width, vectors * width
    rates, carry = scratch, shifted(scratch, block)
    bias, skip = shifted(scratch, 2 * block), shifted(scratch, 2 * block + row)
    sums = shifted(skip, row)
    lost = shifted(sums, block + 2 * row)
    work = shifted(lost, block + 2 * row)
    corner = (batch * f.channels + first) * states
    _spread_states(rates, shifted(pointer(f.A, like), first * states), count, states, like)
    _spread_channels(bias, f.delta_bias, first, count, like)
    _spread_channels(skip, f.D, first, count, like)
    clear(sums, 2 * (vectors * states + 2 * vectors))
    if f.grad_final_state != 0:
        _spread_states(carry, shifted(pointer(f.grad_final_state, like), corner), count, states, like)
    else:
        clear(carry, vectors * states)

    all_sums = (sums, shifted(sums, block), shifted(sums, block + row))
    all_lost = (lost, shifted(lost, block), shifted(lost, block + row))
    space = (rates, carry, all_sums, all_lost, bias, skip, work)
    step = -1 if reverse else 1
    chunks = (length + f.chunk - 1) // f.chunk
    for chunk in range(chunks - 1, -1, -1):
        place = ((batch * chunks + chunk) * f.lanes + lane) * states
        start, stop = chunk * f.chunk, min(length, (chunk + 1) * f.chunk)
        # A reset splits the chunk; what follows it starts from zero, so only the first run needs the kept state.
        for i in range(stop - 1, start - 1, -1):
            anew = _starts_anew(f.seq_idx, batch * length, i, length - 1 - i if reverse else i, step)
            if anew or i == start:
                entering = 0 if anew else f.checkpoints + place * element_size(like)
                _backward_run(f, like, space, batch, first, count, group, reverse, slot, i, stop, entering)
                stop = i

    d_rates, d_bias, d_skip = all_sums
    _gather_states(shifted(pointer(f.A_parts, like), corner), d_rates, count, states, like)
    _gather_states(shifted(pointer(f.grad_initial_state, like), corner), carry, count, states, like)
    bias_parts = shifted(pointer(f.bias_parts, like), batch * f.channels + first)
    skip_parts = shifted(pointer(f.D_parts, like), batch * f.channels + first)
    for v in range(vectors):
        j, left = v * width, count - v * width
        store(bias_parts, j, load_all(d_bias, j), left)
        store(skip_parts, j, load_all(d_skip, j), left)


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
    return 4 * block + 6 * row + 9 * chunk * width + 2 * states * chunk


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
