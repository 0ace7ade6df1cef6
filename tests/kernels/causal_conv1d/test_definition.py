"""The convolution against arithmetic done by hand and against PyTorch's own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from genossm_kernels import causal_conv1d
from genossm_kernels.testing import conv_inputs

BACKENDS = ("reference", "cpu", "torch")


def ramp(length: int) -> torch.Tensor:
    """1, 2, 3, ... in one channel."""
    return torch.arange(1, length + 1, dtype=torch.float64).reshape(1, length, 1)


TAPS = torch.tensor([[1000.0, 100.0, 10.0]], dtype=torch.float64)


def convolve(x: torch.Tensor, backend: str, **options: Any) -> tuple[list[float], list[float]]:
    y, state = causal_conv1d(x, TAPS, activation=None, return_final_state=True, backend=backend, **options)
    return y.flatten().tolist(), state.flatten().tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_last_tap_meets_the_present(backend: str) -> None:
    assert convolve(ramp(4), backend) == ([10, 120, 1230, 2340], [3, 4])


@pytest.mark.parametrize("backend", BACKENDS)
def test_reverse_meets_later_positions_and_hands_on_the_first_ones(backend: str) -> None:
    assert convolve(ramp(4), backend, reverse=True) == ([3210, 4320, 430, 40], [2, 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_initial_inputs_come_before_the_first_oldest_first(backend: str) -> None:
    before = torch.tensor([8.0, 9.0], dtype=torch.float64).reshape(1, 2, 1)
    assert convolve(ramp(3), backend, initial_state=before) == ([8910, 9120, 1230], [2, 3])
    assert convolve(ramp(3), backend, initial_state=before, reverse=True) == ([3210, 9320, 8930], [2, 1])
    assert convolve(ramp(1), backend, initial_state=before) == ([8910], [9, 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_of_another_sequence_count_as_zero_also_in_what_is_handed_on(backend: str) -> None:
    before = torch.tensor([8.0, 9.0], dtype=torch.float64).reshape(1, 2, 1)
    index = torch.tensor([[5, 2, 2, 5]], dtype=torch.int32)
    assert convolve(ramp(4), backend, initial_state=before, seq_idx=index) == ([8910, 20, 230, 40], [0, 4])
    found = convolve(ramp(4), backend, initial_state=before, seq_idx=index, reverse=True)
    assert found == ([10, 320, 30, 8940], [0, 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_bias_and_silu(backend: str) -> None:
    bias = torch.tensor([-8.0], dtype=torch.float64)
    y = causal_conv1d(ramp(1), TAPS, bias, backend=backend)
    assert y.item() == pytest.approx(2 / (1 + math.exp(-2)), rel=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [1, 2, 4, 9])
@pytest.mark.parametrize("length", [1, 3, 50])
def test_equals_pytorch_s_padded_convolution(backend: str, width: int, length: int) -> None:
    inputs = conv_inputs(batch=2, length=length, channels=20, width=width, initial_state=False)
    y = causal_conv1d(**inputs, backend=backend)
    padded = F.pad(inputs["x"].transpose(1, 2), (width - 1, 0))
    expected = F.silu(F.conv1d(padded, inputs["weight"].unsqueeze(1), inputs["bias"], groups=20)).transpose(1, 2)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_dtypes_of_results(backend: str, dtype: torch.dtype) -> None:
    y, state = causal_conv1d(
        torch.ones(2, 5, 3, dtype=dtype), torch.ones(3, 4), return_final_state=True, backend=backend
    )
    assert (y.dtype, y.shape) == (dtype, (2, 5, 3))
    assert (state.dtype, state.shape) == (dtype, (2, 3, 3))
