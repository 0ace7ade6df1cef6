"""Rounding errors: against float64, at most twice what the plain loop makes of them in the same dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genossm_kernels import selective_scan
from genossm_kernels.testing import cast, errors, excess, scan_inputs, scan_results


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("regime", ["random", "trained", "extreme"])
@pytest.mark.parametrize("length", [1, 5, 203])
def test_float32(backend: str, regime: Any, length: int) -> None:
    shape = {"batch": 2 if length > 100 else 24, "length": length, "channels": 40, "groups": 2}
    inputs = cast(scan_inputs(regime, packed=length == 5, **shape), torch.float32)
    truth = scan_results(_wide(inputs), backend="reference")
    plain = scan_results(inputs, backend="reference")
    assert not excess(scan_results(inputs, backend=backend), plain, truth, rounding=2**-23)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("length", [3, 100])
def test_narrow_dtypes_add_only_the_rounding_of_their_outputs(dtype: torch.dtype, backend: str, length: int) -> None:
    inputs = cast(scan_inputs("trained", length=length, channels=40), dtype)
    truth = scan_results(_wide(inputs), backend="reference")
    plain = scan_results(cast(inputs, torch.float32), backend="reference")
    found = scan_results(inputs, backend=backend)
    assert not excess(found, plain, truth, rounding=torch.finfo(dtype).eps)


def nearly_one(length: int) -> dict[str, torch.Tensor]:
    """Steps near 1e-5: a state holds the last hundred thousand positions, and every rounding on the way."""
    inputs = scan_inputs("trained", length=length, channels=24, states=2)
    inputs["delta_bias"].fill_(-11.5)
    return cast(inputs, torch.float32)


def test_a_hundred_thousand_steps_with_decays_near_one() -> None:
    inputs = nearly_one(100_003)
    truth = scan_results(_wide(inputs), backend="cpu", gradients=False)
    found = scan_results(inputs, backend="cpu", gradients=False)
    # The plain loop in float32; numpy, because 100,000 steps of PyTorch take a while.
    steps = F.softplus(inputs["delta"] + inputs["delta_bias"])
    decays = torch.exp(steps[0, :, :, None] * inputs["A"]).numpy()
    drives = ((steps * inputs["u"])[0, :, :, None] * inputs["B"][0]).numpy()
    states = np.empty_like(drives)
    state = inputs["initial_state"][0].numpy()
    for position in range(len(states)):
        state = decays[position] * state + drives[position]
        states[position] = state
    outputs = (torch.from_numpy(states) * inputs["C"][0]).sum(-1) + inputs["D"] * inputs["u"][0]
    plain = {"y": (outputs * F.silu(inputs["z"][0]))[None], "final_state": torch.from_numpy(state)[None]}
    assert not excess(found, plain, truth, rounding=2**-23)


def test_gradients_through_five_thousand_steps_with_decays_near_one() -> None:
    inputs = nearly_one(5_003)
    truth = scan_results(_wide(inputs), backend="cpu")
    plain = scan_results(inputs, backend="reference")
    for backend in ("cpu", "torch"):
        assert not excess(scan_results(inputs, backend=backend), plain, truth, rounding=2**-23)


def test_steps_so_large_or_small_that_decays_vanish_or_stay() -> None:
    """exp(-1e9 ...) is 0 and no NaN; exp(-1e-12 ...) is 1; the input alone decides then."""
    length = 50
    u = torch.randn(1, length, 2, generator=torch.Generator().manual_seed(0))
    delta = torch.tensor([1e9, 1e-12]).expand(1, length, 2)
    ones = torch.ones(1, length, 1, 1)
    for inference in (True, False):
        y, state = selective_scan(
            u.clone().requires_grad_(not inference),
            delta,
            torch.full((2, 1), -3e20),
            ones,
            ones,
            delta_softplus=False,
            return_final_state=True,
            backend="cpu",
        )
        assert torch.equal(y[..., 0].detach(), u[..., 0] * 1e9)
        assert torch.equal(state[0, 0].detach(), y[0, -1, :1].detach())
    still = selective_scan(
        u, delta, torch.full((2, 1), -1.0), ones, ones, initial_state=torch.ones(1, 2, 1), delta_softplus=False
    )
    assert (still[0, :, 1] == 1.0).all()


def test_float64_is_computed_in_float64() -> None:
    inputs = scan_inputs("trained", length=203, channels=40)
    truth, found = (scan_results(inputs, backend=backend) for backend in ("reference", "cpu"))
    assert max(error.largest for error in errors(found, truth).values()) < 1e-12


def _wide(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same numbers, all in float64."""
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
