"""Vectors in memory: nothing outside of what was asked for is touched, sums are sums."""

from __future__ import annotations

import ctypes
from typing import Any

import numba
import numpy as np
import pytest
from numba import types

from genossm_kernels._cpu.lanes import (
    integers,
    lane_count,
    load,
    load_all,
    pointer,
    put,
    store,
    take,
    total,
    totals,
)


def run(body: Any, *numbers: int) -> list[int]:
    """Compile `body(numbers)` and call it with a block of integers; what is left in the block."""
    compiled = numba.cfunc(types.void(types.CPointer(types.int64)))(body)
    block = (ctypes.c_int64 * len(numbers))(*numbers)
    compiled.ctypes(block)
    return list(block)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [0, 1, 5, 7, 8, 15, 16, 40])
def test_partial_loads_and_stores_touch_the_first_lanes_only(dtype: Any, count: int) -> None:
    like = dtype(0)
    source = np.arange(1, 33, dtype=dtype)
    first, second = np.full((2, 32), -7, dtype=dtype)

    def body(block: Any) -> None:
        numbers = integers(block)
        count, origin = numbers[0], pointer(numbers[1], like)
        store(pointer(numbers[2], like), 1, load_all(origin, 3), count)
        store(pointer(numbers[3], like), 1, load(origin, 3, count), lane_count(like))

    run(body, count, source.ctypes.data, first.ctypes.data, second.ctypes.data)
    width = 64 // dtype().itemsize
    kept = min(count, width)
    assert first.tolist() == [-7, *range(4, 4 + kept), *[-7] * (31 - kept)]
    assert second.tolist() == [-7, *range(4, 4 + kept), *[0] * (width - kept), *[-7] * (31 - width)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_totals_put_the_sum_of_vector_i_in_lane_i(dtype: Any) -> None:
    like = dtype(0)
    width = 64 // dtype().itemsize
    vectors = np.random.default_rng(0).integers(-99, 99, (width, width)).astype(dtype)
    together, one = np.zeros((2, width), dtype=dtype)

    def body(block: Any) -> None:
        numbers = integers(block)
        origin = pointer(numbers[0], like)
        store(pointer(numbers[1], like), 0, totals(origin), lane_count(like))
        put(pointer(numbers[2], like), 0, total(load_all(origin, 0)))

    run(body, vectors.ctypes.data, together.ctypes.data, one.ctypes.data)
    assert together.tolist() == vectors.sum(1).tolist()
    assert one[0] == vectors[0].sum()


def test_take_counts() -> None:
    def body(block: Any) -> None:
        numbers = integers(block)
        numbers[1] = take(numbers, 0)
        numbers[2] = take(numbers, 0)

    assert run(body, 5, 0, 0) == [7, 5, 6]
