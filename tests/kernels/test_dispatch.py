"""Which back end runs: `auto` decides once and says why, a named one runs or raises."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

from genossm_kernels import BackendUnavailableError, KernelError, causal_conv1d, dispatch, selective_scan
from genossm_kernels.selective_scan import cpu, reference
from genossm_kernels.selective_scan.contract import ScanCall

X = torch.ones(1, 3, 2)
MAPS = torch.ones(1, 3, 1, 2)


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What was decided and logged in earlier tests."""
    for remembered in (dispatch._load, dispatch._log_choice, dispatch._warn_slow):
        remembered.cache_clear()
    yield
    dispatch._load.cache_clear()


def scan(backend: str = "auto", x: torch.Tensor = X) -> torch.Tensor:
    maps = MAPS.to(x.device)
    return selective_scan(x, x, -maps[0, :2, 0], maps, maps, backend=backend)


def test_auto_takes_the_fused_kernel_of_a_cpu_and_logs_it_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="genossm_kernels"):
        found = [scan(), scan()]
    assert torch.equal(found[0], scan("cpu"))
    messages = [record.getMessage() for record in caplog.records if "backend" in record.getMessage()]
    assert messages == ["selective_scan: backend 'cpu', the fused kernel for device type 'cpu'"]
    assert dispatch.choose_backend("selective_scan", "auto", call_on("cpu")) is cpu


def test_auto_falls_back_with_one_warning_that_says_why_and_what_to_do(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "unavailable", lambda call: "it rains")  # noqa: ARG005
    with caplog.at_level(logging.WARNING, logger="genossm_kernels"):
        found = [scan(), scan()]
    torch.testing.assert_close(found[0], scan("reference"))
    (record,) = caplog.records
    for part in ("selective_scan", "slow", "it rains", "numba"):
        assert part in record.getMessage()


def test_auto_without_numba_still_runs(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("genossm_kernels.") and ".cpu" in name]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("genossm_kernels._cpu")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numba", None)
    with caplog.at_level(logging.WARNING, logger="genossm_kernels"):
        y = causal_conv1d(X, torch.ones(2, 2), activation=None)
    assert y[0, :, 0].tolist() == [1, 2, 2]
    assert "numba" in caplog.text


def test_a_device_without_a_fused_kernel_takes_the_plain_path(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="genossm_kernels"):
        y = scan(x=X.to("meta"))
    assert y.device.type == "meta"
    assert "no fused kernel for device type 'meta'" in caplog.text


def test_a_named_back_end_that_is_not_there_raises() -> None:
    with pytest.raises(BackendUnavailableError, match=r"'mamba_ssm' cannot run this call.*auto"):
        causal_conv1d(X, torch.ones(2, 2), backend="mamba_ssm")
    with pytest.raises(BackendUnavailableError, match="'cpu' cannot run this call: the tensors are on meta"):
        scan("cpu", X.to("meta"))


def test_an_unknown_back_end_names_the_known_ones() -> None:
    with pytest.raises(KernelError, match=r"'triton'; choose one of auto, reference, cpu, torch, cuda, mamba_ssm"):
        scan("triton")


def test_a_cuda_module_runs_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = ModuleType("genossm_kernels.selective_scan.cuda")
    fused.__dict__.update(unavailable=lambda call: None, run=reference.run)  # noqa: ARG005
    monkeypatch.setitem(sys.modules, fused.__name__, fused)
    assert dispatch.choose_backend("selective_scan", "auto", call_on("cuda")) is fused
    assert torch.equal(scan("cuda"), scan("reference"))


def call_on(device: str) -> ScanCall:
    return ScanCall(torch.device(device), torch.float32, 2, (False,), with_initial_state=False, with_seq_idx=False)
