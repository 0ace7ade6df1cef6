"""What the three loops of the CPU scan share: the record of addresses, and moving states and parameters into lanes.

The loops put channels in the lanes: a block of channels walks the sequence with its states beside it in the
first-level cache, B and C are broadcast, and no sum runs across lanes. A step of decoding has no sequence to pay for
turning the states around, so it puts states in the lanes. README.md has derivation and counts.

The arithmetic is written once for float32 and float64: `like` is a number of the element type. `f` is the record of
`ScanFields`. Within a block, vector v of state n lies at lane (v * states + n) * width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from genossm_kernels._cpu.lanes import clear, get, lane_count, load, pointer, put, splat, store_all

INT64 = np.int64(0)
_INT32 = np.int32(0)
BLOCK_FIELDS = 6


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
def spread_states(target, source, count, states, like):
    """(channels, states) in memory -> channels in lanes; lanes without a channel become zero."""
    width = lane_count(like)
    vectors = (count + width - 1) // width
    clear(target, vectors * states)
    for c in range(count):
        base = (c // width) * states * width + c % width
        for n in range(states):
            put(target, base + n * width, get(source, c * states + n))


@njit(error_model="numpy")
def gather_states(target, source, count, states, like):
    """Channels in lanes -> (channels, states) in memory."""
    width = lane_count(like)
    for c in range(count):
        base = (c // width) * states * width + c % width
        for n in range(states):
            put(target, c * states + n, get(source, base + n * width))


@njit(error_model="numpy")
def spread_channels(target, address, first, count, like):
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
def starts_anew(seq_idx, row, i, t, step):
    """Whether the sequence index changes between the position processed before and `t`."""
    if seq_idx == 0 or i == 0:
        return False
    numbers = pointer(seq_idx, _INT32)
    return get(numbers, row + t) != get(numbers, row + t - step)
