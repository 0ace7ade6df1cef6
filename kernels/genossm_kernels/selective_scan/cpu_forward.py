"""The forward loop of the CPU scan."""

from __future__ import annotations

from numba import carray, njit

from genossm_kernels._cpu.elementary import exp, silu, softplus
from genossm_kernels._cpu.kernel import Kernel
from genossm_kernels._cpu.lanes import (
    add,
    clear,
    copy,
    fma,
    get,
    integers,
    lane_count,
    load,
    load_all,
    mul,
    pointer,
    prefetch,
    shifted,
    splat,
    store,
    store_all,
    take,
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

_ROWS_AHEAD = 8  # rows lie further apart than hardware prefetchers look


@njit(error_model="numpy")
def _forward_block(f, like, scratch, batch, first, count, group, reverse, lane):
    width, states, length = lane_count(like), f.states, f.length
    vectors = (count + width - 1) // width
    rates = scratch
    state = shifted(rates, vectors * states * width)
    bias = shifted(state, vectors * states * width)
    skip = shifted(bias, vectors * width)
    spread_states(rates, shifted(pointer(f.A, like), first * states), count, states, like)
    spread_channels(bias, f.delta_bias, first, count, like)
    spread_channels(skip, f.D, first, count, like)
    corner = (batch * f.channels + first) * states
    if f.initial_state != 0:
        spread_states(state, shifted(pointer(f.initial_state, like), corner), count, states, like)
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
            if starts_anew(f.seq_idx, batch * length, i, t, step):
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
    gather_states(shifted(pointer(f.final_state, like), corner), state, count, states, like)


@njit(error_model="numpy")
def _run_forward(counters, f, like):
    scratch = shifted(pointer(f.scratch, like), take(counters, 1) * f.scratch_size)
    blocks = pointer(f.blocks, INT64)
    while True:
        task = take(counters, 0)
        if task >= f.tasks:
            return
        block = shifted(blocks, (task % f.block_count) * BLOCK_FIELDS)
        first, count, group = get(block, 0), get(block, 1), get(block, 2)
        _forward_block(f, like, scratch, task // f.block_count, first, count, group, get(block, 3) != 0, get(block, 4))


def forward_scratch(width: int, vectors: int, states: int) -> int:
    """Elements of scratch that one thread of the forward kernel needs."""
    return 2 * vectors * width * (states + 1)


def _build_forward(like, digest):
    def scan_forward(record):
        _ = digest  # closed over, so that the cache key follows the sources
        _run_forward(integers(record), carray(record, 1)[0], like)

    return scan_forward


scan_forward = Kernel("scan_forward", ScanFields, _build_forward, (__file__, cpu_blocks.__file__))
