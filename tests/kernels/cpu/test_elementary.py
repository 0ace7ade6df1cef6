"""exp, softplus, sigmoid, silu and its slope on vectors, against PyTorch in float64."""

from __future__ import annotations

import ctypes
from typing import Any

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numba import types

from genossm_kernels._cpu import elementary
from genossm_kernels._cpu.lanes import integers, lane_count, load, pointer, store


def silu_slope(x: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(x) * (1 + x * torch.sigmoid(-x))


TRUTH = {
    "exp": torch.exp,
    "softplus": lambda x: torch.log1p(torch.exp(-x.abs())) + x.clamp(min=0),
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "silu_slope": silu_slope,
}


def apply(name: str, x: np.ndarray) -> np.ndarray:
    """Run one function over an array, compiled here and now."""
    function, like = getattr(elementary, name), x.dtype.type(0)

    @numba.cfunc(types.void(types.CPointer(types.int64)))
    def run(block: Any) -> None:
        numbers = integers(block)
        source, target, count = pointer(numbers[0], like), pointer(numbers[1], like), numbers[2]
        for i in range(0, count, lane_count(like)):
            store(target, i, function(load(source, i, count - i)), count - i)

    result = np.full_like(x, np.nan)
    block = (ctypes.c_int64 * 3)(x.ctypes.data, result.ctypes.data, x.size)
    run.ctypes(block)
    return result


def arguments(name: str, dtype: Any) -> np.ndarray:
    """Everywhere between underflow and overflow, denser around zero; an odd number of them."""
    lowest, highest = (-87.3, 88.7) if dtype == np.float32 else (-708.0, 709.0)
    highest = highest if name == "exp" else -lowest
    wide = np.linspace(lowest, highest, 20_001)
    small = np.geomspace(1e-12, 2, 5_000)
    return np.concatenate([wide, small, -small]).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", TRUTH)
def test_accurate_to_units_in_the_last_place(name: str, dtype: Any) -> None:
    x = arguments(name, dtype)
    found = apply(name, x)
    truth = TRUTH[name](torch.from_numpy(x).double()).numpy()
    # silu's slope crosses zero near -1.28, where no relative accuracy can be asked for.
    size = np.maximum(np.abs(truth), 0.1) if name == "silu_slope" else np.abs(truth)
    ulps = np.abs(found - truth) / (np.finfo(dtype).eps * np.maximum(size, np.finfo(dtype).tiny))
    assert ulps.max() < 4
    if name == "exp":  # ln 2 is one float32, whose error grows with |x|: to 2.5 units where exp(x) is about to vanish
        assert ulps[np.abs(x) < 20].max() < 1.5
    assert np.sqrt(np.mean(ulps**2)) < 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_ends_of_exp(dtype: Any) -> None:
    info = np.finfo(dtype)
    x = np.array([0.0, -0.0, -1e4, -info.max, -np.inf, np.nan, 1e4, np.inf, info.tiny, -info.tiny], dtype=dtype)
    found = apply("exp", x)
    assert found[:5].tolist() == [1, 1, 0, 0, 0]
    assert np.isnan(found[5])
    assert (found[6:8] > 0.9 * info.max).all()  # it saturates
    assert found[8:].tolist() == [1, 1]


def test_decays_near_one_are_rounded_without_bias() -> None:
    """A decay that is off by a tenth of a rounding, always the same way, would show after a hundred thousand steps."""
    x = -np.random.default_rng(0).uniform(1e-6, 1e-3, 100_000).astype(np.float32)
    errors = apply("exp", x).astype(np.float64) - np.exp(x.astype(np.float64))
    assert abs(errors.mean()) < 0.02 * np.finfo(np.float32).eps


@pytest.mark.parametrize("name", ["softplus", "sigmoid", "silu", "silu_slope"])
def test_far_ends(name: str) -> None:
    x = np.array([-300.0, 300.0, np.nan, 0.0], dtype=np.float32)
    found = apply(name, x)
    expected = TRUTH[name](torch.from_numpy(x).double()).numpy()
    assert np.isnan(found[2])
    np.testing.assert_allclose(found[[0, 1, 3]], expected[[0, 1, 3]], atol=1e-30)
