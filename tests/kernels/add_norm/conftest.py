"""The back end 'cuda' of `add_norm` on the CPU."""

from __future__ import annotations

import pytest

from genossm_kernels._cuda import emulation
from genossm_kernels.add_norm import cuda


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch, emulator: emulation.Emulator, poisoned: None) -> None:  # noqa: ARG001
    """Every buffer starts as NaN."""
    monkeypatch.setattr(cuda, "launcher_for", lambda _: emulator)
    monkeypatch.setattr(cuda, "unavailable_reason", lambda _: None)
