"""Back ends without arithmetic: the tensors of the real ones, and fused mixers on tensors without memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from genossm.nn import Stack, StackConfig, fused
from genossm.nn.sized import SizedConvolution, SizedScan, sizes_alone, sizing
from genossm.training.estimate import measure_step
from genossm_kernels.causal_conv1d import cpu as convolution
from genossm_kernels.causal_conv1d.contract import ConvArguments
from genossm_kernels.selective_scan import cpu as scan
from genossm_kernels.selective_scan.contract import ScanArguments
from genossm_kernels.testing import cast, conv_inputs, scan_inputs

CPU = torch.device("cpu")


def looks(found: Any) -> list[Any]:
    """What shows of tensors, and of nothing where there is none."""
    return [None if one is None else (tuple(one.shape), one.dtype, one.stride()) for one in found]


def fields(gradients: Any) -> list[Any]:
    return [getattr(gradients, field.name) for field in dataclasses.fields(gradients)]


@pytest.mark.parametrize("whole", [True, False])
def test_a_scan_gives_what_the_real_one_gives(whole: bool) -> None:
    given = cast(scan_inputs(batch=2, length=70, channels=12, groups=2, initial_state=whole), torch.bfloat16)
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    tensors = [given[name] if whole or name not in ("D", "delta_bias") else None for name in names]
    arguments = ScanArguments(*tensors, True, (False,), given.get("initial_state"), None)  # type: ignore[arg-type]
    sized = SizedScan(scan)
    real = scan.forward(arguments, need_backward=True)
    assert looks(sized.forward(arguments, need_backward=True)) == looks(real)
    assert sized.forward(arguments, need_backward=False)[2] is None
    kept, grad_y = real[2], torch.ones_like(arguments.u)
    assert kept is not None
    of_real, of_sized = (backend.backward(arguments, kept, grad_y, None) for backend in (scan, sized))
    assert looks(fields(of_sized)) == looks(fields(of_real))


@pytest.mark.parametrize("whole", [True, False])
def test_a_convolution_gives_what_the_real_one_gives(whole: bool) -> None:
    given = cast(conv_inputs(batch=2, length=30, channels=12, initial_state=whole), torch.float32)
    optional = (given["bias"] if whole else None, True, (False,), given.get("initial_state"), None)
    arguments = ConvArguments(given["x"], given["weight"], *optional)
    sized, grad_y = SizedConvolution(), torch.ones_like(given["x"])
    assert looks(sized.forward(arguments)) == looks(convolution.forward(arguments))
    of_real, of_sized = (backend.backward(arguments, grad_y, None) for backend in (convolution, sized))
    assert looks(fields(of_sized)) == looks(fields(of_real))


def test_the_estimate_follows_what_a_gpu_would_run(monkeypatch: pytest.MonkeyPatch) -> None:
    config = StackConfig(128, 3, direction="bidirectional", objective="masked")
    separate = measure_step(config, 1, 1 << 16, CPU, torch.bfloat16)
    monkeypatch.setattr(fused, "DEVICES", frozenset({"cpu"}))
    made: list[int] = []
    run = fused._run
    monkeypatch.setattr(fused, "_run", lambda steps, *rest: (made.append(len(steps)), run(steps, *rest))[1])
    together = measure_step(config, 1, 1 << 16, CPU, torch.bfloat16)
    assert made == [2, 2, 2]
    assert together.activations < separate.activations
    assert together.peak < separate.peak


def test_elsewhere_nothing_stands_in() -> None:
    assert not sizing()
    with sizes_alone():
        assert sizing()
        with sizes_alone():
            pass
        assert sizing()
    assert not sizing()
    # Whoever counts operators on tensors without memory sees the operators.
    with FakeTensorMode():
        stack = Stack(StackConfig(16, 1))
        with torch.profiler.profile() as seen:
            stack(torch.zeros(1, 40, dtype=torch.uint8))
    assert any("genossm" in event.name for event in seen.events() or ())
