"""Rows of a table by ids, on an emulated GPU."""

from __future__ import annotations

import pytest
import torch

from genossm_kernels import look_up
from genossm_kernels._cuda import compiler, emulation
from genossm_kernels.look_up import take_rows, takes


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch, emulator: emulation.Emulator) -> None:
    monkeypatch.setattr(look_up, "launcher_for", lambda _: emulator)
    monkeypatch.setattr(look_up, "unavailable_reason", lambda _: None)
    monkeypatch.setattr(look_up, "FEWEST", 5)


@pytest.mark.parametrize(
    ("channels", "dtype", "ids"),
    [
        (256, torch.float32, torch.int64),
        (24, torch.bfloat16, torch.int32),  # pieces that do not divide the threads
    ],
)
def test_rows(channels: int, dtype: torch.dtype, ids: torch.dtype) -> None:
    g = torch.Generator().manual_seed(1)
    table = torch.randn((11, channels), generator=g).to(dtype)
    named = torch.randint(0, 11, (2, 123), generator=g).to(ids)
    assert takes(table, named)
    found = take_rows(table, named)
    assert found.is_contiguous()
    assert torch.equal(found, table[named.long()])


def test_what_the_kernel_does_not_take_is_looked_up_all_the_same() -> None:
    table, ids = torch.randn((11, 8)), torch.arange(10)
    assert takes(table, ids)
    others = {
        "few": (table, ids[:4]),
        "odd rows": (torch.randn((11, 7)), ids),
        "wide rows": (torch.randn((11, 260)), ids),
        "gaps between rows": (torch.randn((11, 16))[:, :8], ids),
        "gaps between ids": (table, torch.arange(11)[::2]),
    }
    for name, (rows, named) in others.items():
        assert not takes(rows, named), name
        assert torch.equal(take_rows(rows, named), rows[named]), name


@pytest.mark.skipif(not compiler.installed(), reason="there is no NVRTC to compile with")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_89", "sm_90", "sm_100"])
def test_compiles_without_a_gpu(architecture: str) -> None:
    macros = {"DTYPE": 0, "PIECES": 128, "IDS": 2, "BATCH": 4}
    assert compiler.compile_uncached(look_up._SOURCE, macros, architecture).startswith(b"\x7fELF")
