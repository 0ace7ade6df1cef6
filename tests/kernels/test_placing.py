"""Results written into slices of larger rows, or added to what is there, are those that a call returns by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from genossm_kernels._cuda import emulation
from genossm_kernels.causal_conv1d import both as conv_both
from genossm_kernels.causal_conv1d import cuda as conv_cuda
from genossm_kernels.causal_conv1d import placing as conv_placing
from genossm_kernels.causal_conv1d import projected
from genossm_kernels.causal_conv1d.contract import ConvArguments
from genossm_kernels.dispatch import choose_backend
from genossm_kernels.selective_scan import cuda as scan_cuda
from genossm_kernels.selective_scan import placing as scan_placing
from genossm_kernels.selective_scan.contract import ScanArguments, ScanTargets
from genossm_kernels.testing import cast, conv_inputs, scan_inputs

# Two of them: of the result, and of the sum.
ROUNDING = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-7}
# Channels of the larger rows before the slice, of which 5 leave no row on 16 bytes; and whether to add.
PLACES = [(16, False), (16, True), (5, True)]


@pytest.fixture(params=["cpu", "cuda"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, emulator: emulation.Emulator) -> str:
    """The second one on an emulated GPU."""
    for module in (scan_cuda, conv_cuda):
        monkeypatch.setattr(module, "launcher_for", lambda _: emulator)
        monkeypatch.setattr(module, "unavailable_reason", lambda _: None)
    return request.param


def slices(shape: torch.Size, dtype: torch.dtype, before: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of random numbers, and the part of `shape` in them that begins after `before` channels."""
    rows = torch.randn((*shape[:-1], shape[-1] + before + 8), generator=torch.Generator().manual_seed(4)).to(dtype)
    return rows, rows[..., before : before + shape[-1]]


def check(found: torch.Tensor, rows: torch.Tensor, alone: torch.Tensor, before: int, *, add: bool) -> None:
    """`found` is a slice of what was `rows`: it holds the result, and its neighbours are as they were."""
    held = rows[..., before : before + alone.shape[-1]]
    if add:
        expected, scale = held.double() + alone.double(), held.abs().double() + alone.abs().double()
        assert ((found.double() - expected).abs() <= ROUNDING[alone.dtype] * scale + 1e-30).all()
    else:
        assert torch.equal(found, alone)


@pytest.mark.parametrize(("before", "add"), PLACES)
def test_the_scan(backend: str, before: int, add: bool) -> None:
    dtype = torch.bfloat16
    inputs = cast(scan_inputs(batch=2, length=300, channels=32, groups=1), dtype)
    arguments = ScanArguments(
        *(inputs.get(name) for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")),  # type: ignore[arg-type]
        delta_softplus=True, reverse=(True,), initial_state=inputs["initial_state"], seq_idx=None,
    )  # fmt: skip
    module: Any = choose_backend("selective_scan", backend, arguments.call)
    y, final_state, kept = module.forward(arguments, need_backward=True)
    rows, target = slices(y.shape, dtype, before)
    outer = rows.clone()
    state, kept_too = scan_placing.forward_into(module, arguments, target, add=add, need_backward=True)
    check(target, outer, y, before, add=add)
    assert torch.equal(rows[..., :before], outer[..., :before])
    assert torch.equal(rows[..., before + 32 :], outer[..., before + 32 :])
    assert torch.equal(state, final_state)
    assert kept_too is not None
    torch.testing.assert_close(kept_too, kept, equal_nan=True, rtol=0, atol=0)

    gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).to(dtype)
    alone = module.backward(arguments, kept, gradient, None)
    rows, grad_z = slices(y.shape, dtype, before)
    maps, grad_maps = slices(torch.Size((*y.shape[:2], 2 * arguments.B.shape[3])), dtype, before)
    outer, outer_maps = rows.clone(), maps.clone()
    B, C = (half.unsqueeze(2) for half in grad_maps.chunk(2, dim=-1))
    given = ScanTargets(gradient, arguments.delta, grad_z, B, C, add)  # over what it reads
    found = scan_placing.backward_into(module, arguments, kept, gradient, None, given)
    assert torch.equal(gradient, alone.u)
    assert torch.equal(arguments.delta, alone.delta)
    check(grad_z, outer, alone.z, before, add=add)
    assert torch.equal(torch.cat([B, C], dim=-1), torch.cat([alone.B, alone.C], dim=-1))
    assert torch.equal(rows[..., :before], outer[..., :before])
    assert torch.equal(maps[..., :before], outer_maps[..., :before])
    for name in ("u", "delta", "A", "D", "delta_bias", "initial_state"):
        assert torch.equal(getattr(found, name), getattr(alone, name)), name


@pytest.mark.parametrize(("before", "add"), PLACES)
def test_the_convolution(backend: str, before: int, add: bool) -> None:
    dtype = torch.bfloat16
    inputs = cast(conv_inputs(batch=2, length=70, channels=32), dtype)
    state = inputs["initial_state"].to(dtype)
    arguments = ConvArguments(inputs["x"], inputs["weight"], inputs["bias"], True, (True,), state, None)
    module: Any = choose_backend("causal_conv1d", backend, arguments.call)
    gradient = torch.randn(inputs["x"].shape, generator=torch.Generator().manual_seed(5)).to(dtype)
    rows, y = slices(arguments.x.shape, dtype, before)
    outer = rows.clone()
    expected, expected_state = module.forward(arguments)
    assert torch.equal(conv_placing.forward_into(module, arguments, y), expected_state)
    assert torch.equal(y, expected)
    assert torch.equal(rows[..., :before], outer[..., :before])
    alone = module.backward(arguments, gradient, None)
    rows, grad_x = slices(alone.x.shape, dtype, before)
    outer = rows.clone()
    found = conv_placing.backward_into(module, arguments, gradient, None, grad_x, add=add)
    check(grad_x, outer, alone.x, before, add=add)
    assert torch.equal(rows[..., :before], outer[..., :before])
    assert torch.equal(rows[..., before + 32 :], outer[..., before + 32 :])
    for name in ("weight", "bias", "initial_state"):
        assert torch.equal(getattr(found, name), getattr(alone, name)), name


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("dtype", "width", "length", "channels"),
    [(torch.bfloat16, 4, 300, 32), (torch.bfloat16, 4, 100, 64), (torch.float32, 3, 33, 7)],
)
def test_both_convolutions(
    backend: str,
    dtype: torch.dtype,
    width: int,
    length: int,
    channels: int,
    swapped: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As two calls do it, whose sum of two gradients is rounded twice."""
    monkeypatch.setattr(projected, "FEWEST", 1)
    g = torch.Generator().manual_seed(6)
    rows = torch.randn((2, length, 2 * channels), generator=g).to(dtype)
    ways = [
        ConvArguments(rows[..., :channels], torch.randn((channels, width), generator=g), bias, True, (way,), None, None)
        for way, bias in ((swapped, torch.randn(channels, generator=g)), (not swapped, None))
    ]
    module: Any = choose_backend("causal_conv1d", backend, ways[0].call)
    other: Any = choose_backend("causal_conv1d", "cpu", ways[0].call)
    alone = [other.forward(way) for way in ways]
    buffers = [slices(ways[0].x.shape, dtype, before)[1] for before in (4, 0)]
    states = conv_both.forward_both(module, ways[0], ways[1], (buffers[0], buffers[1]))
    for y, state, (expected, expected_state) in zip(buffers, states, alone, strict=True):
        torch.testing.assert_close(y, expected, rtol=0 if dtype == torch.float32 else 2**-7, atol=2e-6)
        assert torch.equal(state, expected_state)

    gradients = [torch.randn(ways[0].x.shape, generator=g).to(dtype) for _ in ways]
    expected = [other.backward(way, gradient, None) for way, gradient in zip(ways, gradients)]
    buffer, grad_x = slices(ways[0].x.shape, dtype, 4)
    outer = buffer.clone()
    given = (gradients[0], gradients[1])
    found = conv_both.backward_both(module, ways[0], ways[1], given, (None, None), grad_x)
    one, two = (part.x.double() for part in expected)
    assert ((grad_x.double() - one - two).abs() <= 2 * ROUNDING[dtype] * (one.abs() + two.abs()) + 1e-5).all()
    assert torch.equal(buffer[..., :4], outer[..., :4])
    assert torch.equal(buffer[..., 4 + channels :], outer[..., 4 + channels :])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-4, atol=1e-4)
        assert (ours.bias is None) == (theirs.bias is None)
        if ours.bias is not None:
            torch.testing.assert_close(ours.bias, theirs.bias, rtol=1e-4, atol=1e-4)
