"""The scan against arithmetic done by hand: what the definition itself has to say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from genossm_kernels import selective_scan

BACKENDS = ("reference", "cpu", "torch")


def halving(length: int, **changes: object) -> dict:
    """One channel, one state, decay 1/2 a step and a drive of exactly u."""
    inputs: dict = {
        "u": torch.ones(1, length, 1, dtype=torch.float64),
        "delta": torch.ones(1, length, 1, dtype=torch.float64),
        "A": torch.tensor([[-math.log(2)]], dtype=torch.float64),
        "B": torch.ones(1, length, 1, 1, dtype=torch.float64),
        "C": torch.ones(1, length, 1, 1, dtype=torch.float64),
        "delta_softplus": False,
    }
    return inputs | changes


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, -1, 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_constant_input_sums_a_geometric_series(backend: str) -> None:
    y, state = selective_scan(**halving(100), return_final_state=True, backend=backend)
    expected = 2 - 0.5 ** torch.arange(100, dtype=torch.float64)
    torch.testing.assert_close(y.flatten(), expected, rtol=1e-14, atol=0)
    assert state.shape == (1, 1, 1)
    assert state.item() == y[0, -1, 0].item()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length", [4, 40])
def test_an_impulse_halves_at_every_step_and_in_reverse_towards_the_first(backend: str, length: int) -> None:
    impulse = torch.zeros(1, length, 1, dtype=torch.float64)
    impulse[0, 2] = 8.0
    forward = selective_scan(**halving(length, u=impulse), backend=backend)
    assert forward[0, :4, 0].tolist() == pytest.approx([0, 0, 8, 4])
    backward, state = selective_scan(
        **halving(length, u=impulse), reverse=True, return_final_state=True, backend=backend
    )
    assert backward[0, :4, 0].tolist() == pytest.approx([2, 4, 8, 0])
    assert state.item() == pytest.approx(2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_initial_state_enters_before_the_first_processed_position(backend: str) -> None:
    silent = torch.zeros(1, 3, 1, dtype=torch.float64)
    start = torch.full((1, 1, 1), 16.0, dtype=torch.float64)
    y = selective_scan(**halving(3, u=silent), initial_state=start, backend=backend)
    assert y.flatten().tolist() == pytest.approx([8, 4, 2])
    y = selective_scan(**halving(3, u=silent), initial_state=start, reverse=True, backend=backend)
    assert y.flatten().tolist() == pytest.approx([2, 4, 8])


@pytest.mark.parametrize("backend", BACKENDS)
def test_bias_softplus_skip_and_gate(backend: str) -> None:
    """softplus(1/2 + 1/2) = log(1 + e); one step from zero: (C dt B u + D u) silu(z)."""
    y = selective_scan(
        u=column(3),
        delta=column(0.5),
        A=torch.tensor([[-1.0]], dtype=torch.float64),
        B=torch.full((1, 1, 1, 1), 5.0, dtype=torch.float64),
        C=torch.full((1, 1, 1, 1), 7.0, dtype=torch.float64),
        D=torch.tensor([11.0], dtype=torch.float64),
        z=column(2),
        delta_bias=torch.tensor([0.5], dtype=torch.float64),
        backend=backend,
    )
    step = math.log(1 + math.e)
    assert y.item() == pytest.approx((7 * step * 5 * 3 + 11 * 3) * 2 / (1 + math.exp(-2)), rel=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_change_of_sequence_forgets_everything_but_the_initial_state_belongs_to_the_first(backend: str) -> None:
    start = torch.full((1, 1, 1), 4.0, dtype=torch.float64)
    index = torch.tensor([[7, 7, 3, 3, 7]], dtype=torch.int32)
    y = selective_scan(**halving(5), initial_state=start, seq_idx=index, backend=backend)
    assert y.flatten().tolist() == pytest.approx([3, 2.5, 1, 1.5, 1])
    y = selective_scan(**halving(5), initial_state=start, seq_idx=index, reverse=True, backend=backend)
    assert y.flatten().tolist() == pytest.approx([1.5, 1, 1.5, 1, 3])


@pytest.mark.parametrize("backend", BACKENDS)
def test_channels_read_the_maps_of_their_group(backend: str) -> None:
    ones = torch.ones(1, 1, 4, dtype=torch.float64)
    B = torch.tensor([1.0, 10.0], dtype=torch.float64).reshape(1, 1, 2, 1)
    C = torch.tensor([2.0, 3.0], dtype=torch.float64).reshape(1, 1, 2, 1)
    A = -torch.ones(4, 1, dtype=torch.float64)
    y = selective_scan(ones, ones, A, B, C, delta_softplus=False, backend=backend)
    assert y.flatten().tolist() == pytest.approx([2, 2, 30, 30])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [2, 40])
def test_dtypes_of_results(backend: str, dtype: torch.dtype, length: int) -> None:
    u = torch.ones(2, length, 3, dtype=dtype)
    B = torch.ones(2, length, 1, 5, dtype=dtype)
    y, state = selective_scan(u, u, -torch.ones(3, 5), B, B, return_final_state=True, backend=backend)
    assert (y.dtype, y.shape) == (dtype, (2, length, 3))
    assert (state.dtype, state.shape) == (torch.float64 if dtype == torch.float64 else torch.float32, (2, 3, 5))
