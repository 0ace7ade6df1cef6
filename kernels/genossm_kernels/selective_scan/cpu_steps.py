"""The loop of the CPU scan for the short steps of decoding."""

from __future__ import annotations

from numba import carray, njit

from genossm_kernels._cpu.elementary import exp, silu, softplus
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
    put,
    shifted,
    splat,
    store,
    store_all,
    take,
    total,
)
from genossm_kernels.selective_scan import cpu_blocks
from genossm_kernels.selective_scan.cpu_blocks import BLOCK_FIELDS, INT64, ScanFields, spread_channels, starts_anew


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
    spread_channels(bias, f.delta_bias, first, count, like)
    spread_channels(skip, f.D, first, count, like)
    corner = (batch * f.channels + first) * states
    state = shifted(pointer(f.final_state, like), corner)
    for k in range(count * states):
        put(state, k, get(pointer(f.initial_state, like), corner + k) if f.initial_state != 0 else like)

    step = -1 if reverse else 1
    for i in range(length):
        t = length - 1 - i if reverse else i
        if starts_anew(f.seq_idx, batch * length, i, t, step):
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
    blocks = pointer(f.blocks, INT64)
    while True:
        task = take(counters, 0)
        if task >= f.tasks:
            return
        block = shifted(blocks, (task % f.block_count) * BLOCK_FIELDS)
        first, count, group, reverse = get(block, 0), get(block, 1), get(block, 2), get(block, 3) != 0
        _step_block(f, like, scratch, task // f.block_count, first, count, group, reverse)


def steps_scratch(width: int, vectors: int) -> int:
    """Elements of scratch that one thread of the step kernel needs."""
    return 5 * vectors * width


def _build_steps(like, digest):
    def scan_steps(record):
        _ = digest
        _run_steps(integers(record), carray(record, 1)[0], like)

    return scan_steps


scan_steps = Kernel("scan_steps", ScanFields, _build_steps, (__file__, cpu_blocks.__file__))
