"""The `mamba_ssm` back end: its layouts and flips against the definition, which plays the packages here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from genossm_kernels import KernelError, causal_conv1d, dispatch, selective_scan
from genossm_kernels.causal_conv1d.contract import ConvArguments, ConvCall
from genossm_kernels.selective_scan.contract import ScanArguments, ScanCall
from genossm_kernels.testing import conv_inputs, scan_inputs

CUDA = torch.device("cuda")


def their_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Any, z: Any, bias: Any, softplus: bool, **options: Any
) -> tuple[Tensor, Tensor]:
    """mamba-ssm's function, by ours: (batch, channels, length), (batch, groups, state, length)."""
    assert options == {"return_last_state": True}
    assert all(tensor.is_contiguous() for tensor in (u, delta, B, C))
    rows = [None if tensor is None else tensor.movedim(-1, 1) for tensor in (u, delta, B, C, z)]
    y, state = selective_scan(
        *rows[:2],
        A,
        *rows[2:4],
        D,
        rows[4],
        bias,
        delta_softplus=softplus,
        return_final_state=True,
        backend="reference",
    )  # type: ignore[arg-type]
    return y.transpose(1, 2), state


def their_convolution(x: Tensor, weight: Tensor, bias: Any, activation: str | None) -> Tensor:
    y = causal_conv1d(x.transpose(1, 2), weight, bias, activation=activation, backend="reference")  # type: ignore[arg-type]
    return y.transpose(1, 2)


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    names = ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.selective_scan_interface", "causal_conv1d")
    modules = {name: ModuleType(name) for name in names}
    modules[names[2]].__dict__["selective_scan_fn"] = their_scan
    modules["causal_conv1d"].__dict__["causal_conv1d_fn"] = their_convolution
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    ours = [f"genossm_kernels.{operator}.mamba_ssm" for operator in ("selective_scan", "causal_conv1d")]
    for name in ours:
        monkeypatch.delitem(sys.modules, name, raising=False)
    dispatch._load.cache_clear()
    yield
    for name in ours:
        sys.modules.pop(name, None)
    dispatch._load.cache_clear()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("few", [False, True])
def test_the_scan_is_the_definition(reverse: bool, few: bool) -> None:
    module = importlib.import_module("genossm_kernels.selective_scan.mamba_ssm")
    inputs = scan_inputs(batch=2, length=9, channels=6, states=3, groups=2, initial_state=False)
    for name in ("D", "z", "delta_bias") if few else ():
        inputs.pop(name)
    expected = selective_scan(**inputs, reverse=reverse, return_final_state=True, backend="reference")
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    arguments = ScanArguments(*(inputs.get(name) for name in names), True, (reverse,), None, None)  # type: ignore[arg-type]
    for found, wanted in zip(module.run(arguments), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_gradient_of_the_final_state_is_refused_and_of_y_is_right() -> None:
    module = importlib.import_module("genossm_kernels.selective_scan.mamba_ssm")
    inputs = scan_inputs(length=5, channels=4, states=2, initial_state=False)
    leaves = [inputs[name].requires_grad_() for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")]
    y, state = module.run(ScanArguments(*leaves, True, (True,), None, None))
    expected = selective_scan(*leaves, reverse=True, backend="reference")
    for found, wanted in zip(
        torch.autograd.grad(y.square().sum(), leaves), torch.autograd.grad(expected.square().sum(), leaves), strict=True
    ):
        torch.testing.assert_close(found, wanted)
    with pytest.raises(KernelError, match="no gradient for the final state"):
        state.sum().backward()


@pytest.mark.parametrize("length", [2, 9])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_convolution_is_the_definition(reverse: bool, length: int) -> None:
    module = importlib.import_module("genossm_kernels.causal_conv1d.mamba_ssm")
    inputs = conv_inputs(batch=2, length=length, channels=6, initial_state=False)
    expected = causal_conv1d(**inputs, reverse=reverse, return_final_state=True, backend="reference")
    found = module.run(ConvArguments(inputs["x"], inputs["weight"], inputs["bias"], True, (reverse,), None, None))
    for result, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(result, wanted)


SCAN = ScanCall(CUDA, torch.bfloat16, 16, (True,), with_initial_state=False, with_seq_idx=False)
CONV = ConvCall(CUDA, torch.bfloat16, 4, (True,), with_initial_state=False, with_seq_idx=False)
REFUSALS: list[tuple[str, Any, str]] = [
    ("selective_scan", SCAN._replace(device=torch.device("cpu")), "CUDA devices alone"),
    ("selective_scan", SCAN._replace(dtype=torch.float64), "not torch.float64"),
    ("selective_scan", SCAN._replace(with_initial_state=True), "no initial state"),
    ("selective_scan", SCAN._replace(with_seq_idx=True), "no seq_idx"),
    ("selective_scan", SCAN._replace(reverse=(True, False)), "one direction"),
    ("causal_conv1d", CONV._replace(device=torch.device("cpu")), "CUDA devices alone"),
    ("causal_conv1d", CONV._replace(dtype=torch.float64), "not torch.float64"),
    ("causal_conv1d", CONV._replace(width=24), "widths of 2 to 4, not 24"),
    ("causal_conv1d", CONV._replace(with_initial_state=True), "initial state"),
    ("causal_conv1d", CONV._replace(with_seq_idx=True), "seq_idx"),
    ("causal_conv1d", CONV._replace(reverse=(True, False)), "one direction"),
]


@pytest.mark.parametrize(("operator", "call", "reason"), REFUSALS)
def test_what_it_lacks_is_said(operator: str, call: Any, reason: str) -> None:
    with pytest.raises(KernelError, match=f"'mamba_ssm' cannot run this call: .*{reason}.*pass 'auto'"):
        dispatch.choose_backend(operator, "mamba_ssm", call)


def test_what_it_has_is_taken() -> None:
    for operator, call in (("selective_scan", SCAN), ("causal_conv1d", CONV)):
        assert dispatch.choose_backend(operator, "mamba_ssm", call).__name__.endswith(f"{operator}.mamba_ssm")
