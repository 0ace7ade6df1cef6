"""What the kernels' tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from genossm_kernels import dispatch, kinds


@pytest.fixture(autouse=True)
def choices() -> Iterator[None]:
    """A back end chosen under a test's pretences is forgotten with them."""
    dispatch.choose_backend.cache_clear()
    kinds.forget_all()
    yield
    dispatch.choose_backend.cache_clear()
    kinds.forget_all()


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every buffer starts as NaN: whatever a kernel reads or returns without having written it shows."""
    empty, empty_like = torch.empty, torch.empty_like

    def poison(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: poison(empty(*args, **kwargs)))
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kwargs: poison(empty_like(*args, **kwargs)))


@pytest.fixture
def threads() -> Iterator[None]:
    """Whatever number of threads a test sets, the next test does not inherit it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
