"""Both directions' convolutions of many taps over the same rows: one launch, and what two calls give."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from genossm_kernels._cuda import emulation
from genossm_kernels.causal_conv1d import both, cuda, cuda_plan
from genossm_kernels.causal_conv1d.contract import ConvArguments
from genossm_kernels.dispatch import choose_backend

ROUNDING = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-7}


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, emulator: emulation.Emulator) -> Any:
    """On an emulated GPU, several runs a sequence, and no call for one direction alone."""
    monkeypatch.setattr(cuda, "launcher_for", lambda _: emulator)
    monkeypatch.setattr(cuda, "unavailable_reason", lambda _: None)
    monkeypatch.setattr(cuda_plan, "_LONGEST_RUN", 40)
    monkeypatch.delattr(both, "forward_into")
    monkeypatch.delattr(both, "backward_into")
    return cuda


def nothing(like: torch.Tensor, before: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of NaN, and a slice of them after so many channels."""
    channels = like.shape[-1]
    rows = torch.full((*like.shape[:2], channels + before + 8), torch.nan, dtype=like.dtype)
    return rows, rows[..., before : before + channels]


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("dtype", "width", "length", "channels"),
    [(torch.bfloat16, 16, 150, 72), (torch.float32, 6, 100, 36), (torch.bfloat16, 24, 30, 8)],
)
def test_one_launch_is_two_calls(
    backend: Any, dtype: torch.dtype, width: int, length: int, channels: int, swapped: bool
) -> None:
    g = torch.Generator().manual_seed(6)
    x = torch.randn((2, length, 2 * channels), generator=g).to(dtype)[..., :channels]
    ways = [
        ConvArguments(x, torch.randn((channels, width), generator=g), bias, True, (way,), None, None)
        for way, bias in ((swapped, torch.randn(channels, generator=g)), (not swapped, None))
    ]
    other: Any = choose_backend("causal_conv1d", "cpu", ways[0].call)
    (_, y_one), (_, y_two) = nothing(x, 8), nothing(x, 0)
    states = both.forward_both(backend, ways[0], ways[1], (y_one, y_two))
    for way, y, state in zip(ways, (y_one, y_two), states, strict=True):
        expected, expected_state = other.forward(way)
        torch.testing.assert_close(y, expected, rtol=ROUNDING[dtype], atol=1e-5)
        assert torch.equal(state, expected_state)

    one, two = (torch.randn(x.shape, generator=g).to(dtype) for _ in ways)
    rows, grad_x = nothing(x, 8)
    found = both.backward_both(backend, ways[0], ways[1], (one, two), (None, None), grad_x)
    expected = [other.backward(way, gradient, None) for way, gradient in zip(ways, (one, two), strict=True)]
    scale = sum(part.x.double().abs() for part in expected)
    assert (
        (grad_x.double() - sum(part.x.double() for part in expected)).abs() <= 2 * ROUNDING[dtype] * scale + 1e-5
    ).all()
    assert torch.cat([rows[..., :8], rows[..., 8 + channels :]], dim=-1).isnan().all()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-4, atol=1e-3)
        assert (ours.bias is None) == (theirs.bias is None)
        if ours.bias is not None:
            torch.testing.assert_close(ours.bias, theirs.bias, rtol=1e-4, atol=1e-3)
