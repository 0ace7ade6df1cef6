"""What only a real GPU shows: sizes past 32-bit offsets, a million steps, the same bits twice, graphs and streams."""

from __future__ import annotations

import math

import pytest
import torch

from genossm_kernels.selective_scan import selective_scan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
ROWS = ("u", "delta", "z")


def inputs(
    length: int, channels: int, dtype: torch.dtype, device: str, largest_step: float = 0.1
) -> dict[str, torch.Tensor]:
    """Like a trained layer: steps between 1e-3 and `largest_step` by channel, rates 1 to 16."""
    g = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=g, device=device, dtype=dtype)

    low, high = math.log(1e-3), math.log(largest_step)
    step = torch.exp(low + (high - low) * torch.rand(channels, generator=g, device=device))
    return {
        "u": normal(1, length, channels),
        "delta": 0.5 * normal(1, length, channels),
        "A": -torch.arange(1.0, 17.0, device=device).repeat(channels, 1),
        "B": normal(1, length, 1, 16),
        "C": normal(1, length, 1, 16),
        "D": torch.randn(channels, generator=g, device=device),
        "z": normal(1, length, channels),
        "delta_bias": step + torch.log(-torch.expm1(-step)),
    }


def gradients(tensors: dict[str, torch.Tensor], grad_y: torch.Tensor, backend: str) -> dict[str, torch.Tensor]:
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    y = selective_scan(**leaves, backend=backend)
    y.backward(grad_y)
    results = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    return {"y": y.detach(), **results}


@pytest.mark.parametrize("largest_step", [0.1, 2e-3])
def test_a_million_steps_are_as_accurate_as_plain_float(largest_step: float) -> None:
    """Decays near 1 carry rounding a long way; the CPU back end in float32 is the plain path."""
    tensors = inputs(1 << 20, 32, torch.float32, "cpu", largest_step)
    grad_y = torch.randn(tensors["u"].shape, generator=torch.Generator().manual_seed(1))
    exact = gradients({name: tensor.double() for name, tensor in tensors.items()}, grad_y.double(), "cpu")
    plain = gradients(tensors, grad_y, "cpu")
    fused = gradients({name: tensor.cuda() for name, tensor in tensors.items()}, grad_y.cuda(), "cuda")
    for name, expected in exact.items():
        error = (fused[name].cpu().double() - expected).norm() / expected.norm()
        allowed = 2 * (plain[name].double() - expected).norm() / expected.norm() + 1e-7
        print(f"{name}: {error:.2e}, plain {allowed / 2:.2e}")
        assert error <= allowed, f"{name}: {error:.2e} > {allowed:.2e}"


def test_offsets_past_32_bits() -> None:
    """2.7e9 elements a tensor: the last channels and the last positions equal those of a small call."""
    length, channels, kept = (1 << 20) + 3, 2560, slice(2528, 2560)
    tensors = inputs(length, channels, torch.bfloat16, "cuda")
    grad_y = torch.randn((1, length, channels), dtype=torch.bfloat16, device="cuda")
    assert tensors["u"].numel() > 2**31
    whole = gradients(tensors, grad_y, "cuda")
    few = {
        name: tensor[..., kept].contiguous()
        if name in ROWS
        else tensor[kept]
        if name in ("A", "D", "delta_bias")
        else tensor
        for name, tensor in tensors.items()
    }
    small = gradients(few, grad_y[..., kept].contiguous(), "cuda")
    for name in ("y", *ROWS):
        difference = (whole[name][..., kept].float() - small[name].float()).norm() / small[name].float().norm()
        assert difference < 1e-3, f"{name}: {difference:.1e}"
    for name in ("A", "D", "delta_bias"):
        torch.testing.assert_close(whole[name][kept], small[name], rtol=1e-4, atol=1e-3)


def test_same_bits_twice() -> None:
    tensors = inputs(5000, 512, torch.bfloat16, "cuda")
    grad_y = torch.randn(tensors["u"].shape, dtype=torch.bfloat16, device="cuda")
    first, second = gradients(tensors, grad_y, "cuda"), gradients(tensors, grad_y, "cuda")
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_reverse_equals_flipping() -> None:
    tensors = inputs(3001, 64, torch.float32, "cuda")
    flipped = {name: tensor.flip(1) if name in (*ROWS, "B", "C") else tensor for name, tensor in tensors.items()}
    reversed_y = selective_scan(**tensors, reverse=True, backend="cuda")
    assert torch.equal(reversed_y, selective_scan(**flipped, backend="cuda").flip(1))


def test_captured_in_a_graph_on_its_own_stream() -> None:
    tensors = inputs(3000, 128, torch.bfloat16, "cuda")
    expected = selective_scan(**tensors, backend="cuda")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        on_stream = selective_scan(**tensors, backend="cuda")
    torch.cuda.synchronize()
    assert torch.equal(on_stream, expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = selective_scan(**tensors, backend="cuda")
    captured.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured, expected)
