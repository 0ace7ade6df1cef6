"""Wrong arguments: what, got, wanted, next step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from genossm_kernels import KernelError, ShapeError, causal_conv1d, selective_scan
from genossm_kernels.testing import conv_inputs, scan_inputs

SHAPES = {
    "delta": ((2, 5, 7), r"delta is \(2, 5, 7\); wanted \(batch, length, channels\) = \(2, 5, 6\)"),
    "z": ((1, 5, 6), r"z is \(1, 5, 6\); wanted"),
    "A": ((5, 3), r"A is \(5, 3\); wanted \(channels, state\) = \(6, 3\)"),
    "B": ((2, 4, 1, 3), r"B is \(2, 4, 1, 3\); wanted \(batch, length, groups, state\)"),
    "C": ((2, 5, 2, 3), r"C is \(2, 5, 2, 3\); wanted .* = \(2, 5, 1, 3\)"),
    "D": ((1,), r"D is \(1,\); wanted \(channels,\) = \(6,\)"),
    "delta_bias": ((6, 1), r"delta_bias is \(6, 1\); wanted"),
    "initial_state": ((2, 3, 6), r"initial_state is \(2, 3, 6\); wanted \(batch, channels, state\) = \(2, 6, 3\)"),
    "u": ((5, 6), r"u is \(5, 6\); wanted \(batch, length, channels\), none of them 0"),
}


def scan(**changes: Any) -> None:
    selective_scan(**scan_inputs(batch=2, length=5, channels=6, states=3) | changes)


@pytest.mark.parametrize("name", SHAPES)
def test_sizes_that_disagree(name: str) -> None:
    shape, message = SHAPES[name]
    with pytest.raises(ShapeError, match=message):
        scan(**{name: torch.zeros(shape, dtype=torch.float64)})


def test_sizes_of_nothing_and_of_groups() -> None:
    with pytest.raises(ShapeError, match=r"u is \(2, 0, 6\); wanted .* none of them 0"):
        scan(u=torch.zeros(2, 0, 6, dtype=torch.float64))
    maps = torch.zeros(2, 5, 4, 3, dtype=torch.float64)
    with pytest.raises(ShapeError, match="4 groups of B must divide 6 channels"):
        scan(B=maps, C=maps)
    with pytest.raises(ShapeError, match=r"B \(2, 5, 3\); wanted .*Give a B without groups one with B.unsqueeze\(2\)"):
        scan(B=maps[:, :, 0])


def test_directions() -> None:
    with pytest.raises(ShapeError, match="reverse has 4 entries, which do not divide 6 channels"):
        scan(reverse=(True, False, True, False))
    with pytest.raises(KernelError, match=r"reverse is \('yes',\); wanted a bool"):
        scan(reverse=("yes",))
    with pytest.raises(KernelError, match="wanted a bool"):
        scan(reverse=())


def test_dtypes_and_devices() -> None:
    with pytest.raises(KernelError, match=r"z is torch.float32 and u is torch.float64.*z.to\(u.dtype\)"):
        scan(z=torch.zeros(2, 5, 6))
    with pytest.raises(KernelError, match=r"u is torch.int64; wanted float32"):
        scan(u=torch.zeros(2, 5, 6, dtype=torch.int64))
    with pytest.raises(KernelError, match=r"seq_idx is torch.float64; wanted int32"):
        scan(seq_idx=torch.zeros(2, 5, dtype=torch.float64))
    with pytest.raises(KernelError, match=r"D is on meta, the rest on cpu"):
        scan(D=torch.zeros(6, dtype=torch.float64, device="meta"))


def test_the_convolution_s() -> None:
    def convolve(**changes: Any) -> None:
        causal_conv1d(**conv_inputs(batch=2, length=5, channels=6) | changes)

    with pytest.raises(ShapeError, match=r"weight is \(6, 1, 4\); wanted .*squeeze\(1\)"):
        convolve(weight=torch.zeros(6, 1, 4))
    with pytest.raises(ShapeError, match=r"initial_state is \(2, 4, 6\); wanted \(batch, width - 1, channels\)"):
        convolve(initial_state=torch.zeros(2, 4, 6))
    with pytest.raises(ShapeError, match=r"bias is \(4,\); wanted \(channels,\) = \(6,\)"):
        convolve(bias=torch.zeros(4))
    with pytest.raises(ShapeError, match=r"x is \(2, 0, 6\)"):
        convolve(x=torch.zeros(2, 0, 6))
    with pytest.raises(KernelError, match="activation is 'relu'; wanted 'silu' or None"):
        convolve(activation="relu")
    with pytest.raises(KernelError, match=r"x is torch.int32"):
        convolve(x=torch.zeros(2, 5, 6, dtype=torch.int32))
