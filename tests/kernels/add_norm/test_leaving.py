"""A projection taken together with the addition and the norm behind it, on an emulated GPU."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from genossm_kernels._cuda import compiler, emulation
from genossm_kernels.add_norm import leaving
from genossm_kernels.add_norm.leaving import Leaving, forward_leaving, takes

# Of float32 each of the products that are summed one after the other may be off by one, in any direction.
ROUNDING = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
EPS = 1e-5


@pytest.fixture
def backend(emulator: emulation.Emulator) -> Any:
    return SimpleNamespace(launcher_for=lambda _: emulator)


def given(rows: int, inner: int, channels: int, ids: torch.dtype | None, narrow: torch.dtype) -> Leaving:
    g = torch.Generator().manual_seed(1)
    y, matrix = (torch.randn(size, generator=g).to(narrow) for size in ((2, rows, 2 * inner), (channels, inner)))
    residual = torch.randn((2, rows, channels) if ids is None else (7, channels), generator=g)
    named = None if ids is None else torch.randint(0, 7, (2, rows), generator=g).to(ids)
    return Leaving(y[..., inner:], matrix, residual, named, torch.randn(channels, generator=g), EPS, narrow)


def exact(a: Leaving) -> tuple[Tensor, Tensor]:
    residual = a.residual if a.ids is None else a.residual[a.ids.long()]
    stream = residual.double() + a.y.double() @ a.matrix.double().t()
    return stream / (stream.square().mean(-1, keepdim=True) + EPS).sqrt() * a.weight.double(), stream


def close(found: Tensor, expected: Tensor, inner: int) -> None:
    assert not found.isnan().any()
    roundings = math.sqrt(inner) if found.dtype == torch.float32 else 1
    assert (found.double() - expected).norm() <= roundings * ROUNDING[found.dtype] * expected.norm()


@pytest.mark.parametrize(
    ("rows", "inner", "channels", "ids", "narrow"),
    [
        (103, 64, 64, None, torch.bfloat16),
        (9, 320, 32, torch.int64, torch.float16),  # more of the matrix than registers hold
        (70, 64, 64, torch.int32, torch.bfloat16),
    ],
)
def test_stream_and_norm(
    backend: Any, rows: int, inner: int, channels: int, ids: torch.dtype | None, narrow: torch.dtype
) -> None:
    a = given(rows, inner, channels, ids, narrow)
    assert takes(backend, a)
    hidden, stream = forward_leaving(backend, a, keep=True)
    assert hidden.dtype == narrow
    assert stream is not None
    for found, expected in zip((hidden, stream), exact(a), strict=True):
        close(found, expected, inner)
    again = forward_leaving(backend, a, keep=True)
    assert torch.equal(again[0], hidden)


def test_last_norm_is_wide_and_leaves_no_stream(backend: Any) -> None:
    a = replace(given(33, 64, 64, None, torch.bfloat16), dtype=torch.float32)
    assert takes(backend, a)
    hidden, stream = forward_leaving(backend, a, keep=False)
    assert stream is None
    close(hidden, exact(a)[0], 64)


def test_what_it_does_not_take(backend: Any) -> None:
    a = given(9, 64, 64, torch.int64, torch.bfloat16)
    assert takes(backend, a)
    assert a.ids is not None
    others = {
        "no launcher": (SimpleNamespace(), a),
        "odd channels": (backend, given(9, 64, 48, None, torch.bfloat16)),
        "odd inner": (backend, given(9, 40, 64, None, torch.bfloat16)),
        "too many channels": (backend, given(1, 16, 288, None, torch.bfloat16)),
        "float32": (backend, given(9, 64, 64, None, torch.float32)),
        "a narrow stream": (backend, replace(a, residual=a.residual.bfloat16())),
        "the other narrow result": (backend, replace(a, dtype=torch.float16)),
        "short ids": (backend, replace(a, ids=a.ids.to(torch.uint8))),
        "rows at odd places": (backend, replace(a, y=torch.zeros((2, 9, 68), dtype=torch.bfloat16)[..., :64])),
        "two steps between rows": (backend, replace(a, y=torch.zeros((2, 10, 64), dtype=torch.bfloat16)[:, :9])),
    }
    for name, (used, other) in others.items():
        assert not takes(used, other), name
    small = SimpleNamespace(launcher_for=lambda _: SimpleNamespace(shared_bytes_per_block=1 << 10))
    assert not takes(small, a)


@pytest.mark.skipif(not compiler.installed(), reason="there is no NVRTC to compile with")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_89", "sm_90", "sm_100"])
def test_compiles_without_a_gpu(architecture: str) -> None:
    macros = {"DTYPE": 1, "COLUMNS": 64, "INNER": 96, "KEPT": 4, "STAGES": 2, "BLOCKS": 4}
    cubin = compiler.compile_uncached(leaving._SOURCE, macros | {"IDS": 2, "KEEP": 1, "WIDE": 0}, architecture)
    assert cubin.startswith(b"\x7fELF")
