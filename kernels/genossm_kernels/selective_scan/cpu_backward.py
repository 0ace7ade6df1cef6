"""The backward loop of the CPU scan: chunks from the last to the first, in each replay and unwind."""

from __future__ import annotations

from numba import carray, njit

from genossm_kernels._cpu.elementary import exp, sigmoid, silu, silu_slope, softplus
from genossm_kernels._cpu.kernel import Kernel
from genossm_kernels._cpu.lanes import (
    add,
    clear,
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
    totals,
)
from genossm_kernels.selective_scan import cpu_blocks
from genossm_kernels.selective_scan.cpu_blocks import (
    BLOCK_FIELDS,
    INT64,
    ScanFields,
    gather_states,
    spread_channels,
    spread_states,
    starts_anew,
)


@njit(error_model="numpy")
def _add_exactly(total, lost, j, value):
    """Add to a running sum that remembers what its last rounding lost (Kahan)."""
    value = sub(value, load_all(lost, j))
    before = load_all(total, j)
    after = add(before, value)
    store_all(lost, j, sub(sub(after, before), value))
    store_all(total, j, after)


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
    spread_states(rates, shifted(pointer(f.A, like), first * states), count, states, like)
    spread_channels(bias, f.delta_bias, first, count, like)
    spread_channels(skip, f.D, first, count, like)
    clear(sums, 2 * (vectors * states + 2 * vectors))
    if f.grad_final_state != 0:
        spread_states(carry, shifted(pointer(f.grad_final_state, like), corner), count, states, like)
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
            anew = starts_anew(f.seq_idx, batch * length, i, length - 1 - i if reverse else i, step)
            if anew or i == start:
                entering = 0 if anew else f.checkpoints + place * element_size(like)
                _backward_run(f, like, space, batch, first, count, group, reverse, slot, i, stop, entering)
                stop = i

    d_rates, d_bias, d_skip = all_sums
    gather_states(shifted(pointer(f.A_parts, like), corner), d_rates, count, states, like)
    gather_states(shifted(pointer(f.grad_initial_state, like), corner), carry, count, states, like)
    bias_parts = shifted(pointer(f.bias_parts, like), batch * f.channels + first)
    skip_parts = shifted(pointer(f.D_parts, like), batch * f.channels + first)
    for v in range(vectors):
        j, left = v * width, count - v * width
        store(bias_parts, j, load_all(d_bias, j), left)
        store(skip_parts, j, load_all(d_skip, j), left)


@njit(error_model="numpy")
def _run_backward(counters, f, like):
    scratch = shifted(pointer(f.scratch, like), take(counters, 1) * f.scratch_size)
    blocks = pointer(f.blocks, INT64)
    while True:
        task = take(counters, 0)
        if task >= f.tasks:
            return
        block = shifted(blocks, (task % f.block_count) * BLOCK_FIELDS)
        first, count, group, reverse = get(block, 0), get(block, 1), get(block, 2), get(block, 3) != 0
        batch, lane, slot = task // f.block_count, get(block, 4), get(block, 5)
        _backward_block(f, like, scratch, batch, first, count, group, reverse, lane, slot)


def backward_scratch(width: int, vectors: int, states: int, chunk: int) -> int:
    """Elements of scratch that one thread of the backward kernel needs."""
    block, row = vectors * states * width, vectors * width
    return 4 * block + 6 * row + 9 * chunk * width + 2 * states * chunk


def _build_backward(like, digest):
    def scan_backward(record):
        _ = digest
        _run_backward(integers(record), carray(record, 1)[0], like)

    return scan_backward


scan_backward = Kernel("scan_backward", ScanFields, _build_backward, (__file__, cpu_blocks.__file__))
