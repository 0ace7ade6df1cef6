"""Convolutions taken together with the projection of what they put out, on an emulated GPU: the numbers of both."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genossm_kernels import skinny
from genossm_kernels._cuda import emulation
from genossm_kernels.causal_conv1d import projected, projecting
from genossm_kernels.causal_conv1d.contract import ConvArguments

WAYS = {"earlier": (False,), "later": (True,), "both": (False, True), "swapped": (True, False)}
ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few positions there are."""
    for module in (projected, projecting, skinny):
        monkeypatch.setattr(module, "FEWEST", 1)


@pytest.fixture
def backend(emulator: emulation.Emulator) -> Any:
    return SimpleNamespace(launcher_for=lambda _: emulator)


def convolved(call: ConvArguments) -> Tensor:
    """By PyTorch, in the dtype of its inputs."""
    x, width = call.x.transpose(1, 2), call.weight.shape[1]
    x = x.flip(2) if call.reverse[0] else x
    u = F.silu(F.conv1d(F.pad(x, (width - 1, 0)), call.weight.unsqueeze(1), call.bias, groups=len(call.weight)))
    return (u.flip(2) if call.reverse[0] else u).transpose(1, 2)


def close(found: Tensor, expected: Tensor, roundings: float = 1.0) -> None:
    """Relative to the whole: one rounding of each element."""
    assert not found.isnan().any()
    allowed = roundings * ROUNDING[torch.bfloat16 if found.dtype == torch.float32 else found.dtype]
    assert (found.double() - expected).norm() <= allowed * expected.norm()


def calls_of(rows: Tensor, ways: tuple[bool, ...], width: int) -> list[ConvArguments]:
    """Over the second half of rows; the first with a bias."""
    g, channels = torch.Generator().manual_seed(1), rows.shape[-1] // 2
    biases = (torch.randn(channels, generator=g), None)
    weights = [torch.randn((channels, width), generator=g) for _ in ways]
    x = rows[..., channels:]
    return [ConvArguments(x, w, b, True, (way,), None, None) for way, w, b in zip(ways, weights, biases)]


CASES = [
    ("earlier", 1, 300, 64, 48, 4, torch.bfloat16),
    ("later", 2, 75, 128, 36, 2, torch.float16),
    ("both", 1, 333, 64, 48, 4, torch.bfloat16),
    ("swapped", 2, 20, 64, 8, 6, torch.bfloat16),
]


@pytest.mark.parametrize(("ways", "batch", "length", "channels", "columns", "width", "dtype"), CASES)
def test_gradients(
    backend: Any, ways: str, batch: int, length: int, channels: int, columns: int, width: int, dtype: torch.dtype
) -> None:
    g = torch.Generator().manual_seed(2)
    rows = torch.randn((batch, length, 2 * channels), generator=g).to(dtype)
    target = torch.full_like(rows, float("nan"))
    given = []
    for call in calls_of(rows, WAYS[ways], width):
        weight = (0.2 * torch.randn((columns, channels), generator=g)).to(dtype)
        grad_u, grad_low = (torch.randn((batch, length, size), generator=g).to(dtype) for size in (channels, columns))
        given.append(projected.Projected(call, weight, grad_u, grad_low))
    assert projected.fits(backend, [one.convolution for one in given], given[0].weight)
    found = projected.backward_projected(backend, given, target[..., channels:])
    assert target[..., :channels].isnan().all()

    x = rows[..., channels:].double().requires_grad_()
    total = x.new_zeros(())
    leaves = []
    for one in given:
        taps, weight = one.convolution.weight.double().requires_grad_(), one.weight.double().requires_grad_()
        bias = None if one.convolution.bias is None else one.convolution.bias.double().requires_grad_()
        u = convolved(ConvArguments(x, taps, bias, True, one.convolution.reverse, None, None))
        total = total + (u * one.grad_u).sum() + (F.linear(u, weight) * one.grad_low).sum()
        leaves.append((taps, bias, weight))
    total.backward()
    assert x.grad is not None
    close(target[..., channels:], x.grad, 2)
    for (gradients, of_weight), (taps, bias, weight) in zip(found, leaves, strict=True):
        close(gradients.weight, taps.grad, 2)
        assert of_weight is not None
        close(of_weight, weight.grad, 2)
        assert (gradients.bias is None) == (bias is None)
        if gradients.bias is not None:
            close(gradients.bias, bias.grad, 2)


@pytest.mark.parametrize(("ways", "batch", "length", "channels", "columns", "width", "dtype"), CASES)
def test_outputs(
    backend: Any, ways: str, batch: int, length: int, channels: int, columns: int, width: int, dtype: torch.dtype
) -> None:
    g = torch.Generator().manual_seed(3)
    rows = torch.randn((batch, length, 2 * channels), generator=g).to(dtype)
    calls = calls_of(rows, WAYS[ways], width)
    weights = [torch.randn((columns, channels), generator=g).to(dtype) for _ in calls]
    buffers = [torch.full_like(rows, float("nan")) for _ in calls]
    outputs = [buffer[..., :channels] for buffer in buffers]
    assert projecting.projects(backend, calls, weights[0]) == (len(calls) == 1 or width <= 4)
    widen = [torch.randn((channels, min(16, columns)), generator=g).to(dtype) for _ in calls]
    assert all(map(projecting.widens, widen))
    states, lows, wides = projecting.forward_projecting(backend, calls, weights, outputs, widen)
    for low, weight, wide in zip(lows, widen, wides, strict=True):
        close(wide, F.linear(low[..., : weight.shape[1]].double(), weight.double()))
    for call, weight, u, buffer, state, low in zip(calls, weights, outputs, buffers, states, lows, strict=True):
        x = call.x.double()
        bias = None if call.bias is None else call.bias.double()
        close(u, convolved(ConvArguments(x, call.weight.double(), bias, True, call.reverse, None, None)))
        close(low, F.linear(u.double(), weight.double()))
        assert buffer[..., channels:].isnan().all()
        ends = call.x[:, : width - 1].flip(1) if call.reverse[0] else call.x[:, length - width + 1 :]
        assert torch.equal(state, ends)


def test_a_second_projection_changes_nothing_else(backend: Any) -> None:
    g = torch.Generator().manual_seed(3)
    rows = torch.randn((1, 75, 128), generator=g).bfloat16()
    calls = calls_of(rows, WAYS["both"], 4)
    weights = [torch.randn((48, 64), generator=g).bfloat16() for _ in calls]
    outputs = [[torch.full_like(call.x, float("nan")) for call in calls] for _ in range(2)]
    widen = [torch.randn((64, 12), generator=g).bfloat16() for _ in calls]
    _, with_it, wides = projecting.forward_projecting(backend, calls, weights, outputs[0], widen)
    _, without, none = projecting.forward_projecting(backend, calls, weights, outputs[1])
    assert (len(wides), len(none)) == (2, 0)
    for one, other in zip((*outputs[0], *with_it), (*outputs[1], *without), strict=True):
        assert torch.equal(one, other)
    assert not projecting.widens(torch.zeros((64, 20)))
    assert not projecting.widens(torch.zeros((64, 6)))
    assert not projecting.widens(torch.zeros((12, 64)).t())


@pytest.mark.parametrize(
    ("rows", "channels", "rank", "dtype"), [(300, 128, 16, torch.bfloat16), (37, 64, 12, torch.float16)]
)
def test_a_projection_of_few_columns(backend: Any, rows: int, channels: int, rank: int, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(4)
    grad_wide, low, weight = (
        torch.randn(size, generator=g).to(dtype) for size in ((rows, channels), (rows, 48), (channels, rank))
    )
    target = torch.full((rows, 48), float("nan"), dtype=dtype)
    narrow = low[:, :rank]
    assert skinny.fits(backend, grad_wide, narrow, weight)
    found = skinny.backward_skinny(backend, grad_wide, narrow, weight, target[:, :rank])
    close(found, grad_wide.double().t() @ narrow.double())
    close(target[:, :rank], grad_wide.double() @ weight.double())
    assert target[:, rank:].isnan().all()
    other = torch.empty_like(target)
    plain = skinny.backward_skinny(SimpleNamespace(), grad_wide, narrow, weight, other[:, :rank])
    close(found, plain.double(), 2)
