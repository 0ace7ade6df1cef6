"""The mixer: its formula written a second time, initialisation, gradients, dtypes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.nn import LayerState, Mamba1, StackConfig
from genossm.nn.mamba1 import inverse_softplus
from genossm.testing.models import enliven

BACKENDS = ["reference", "cpu"]


def by_hand(mixer: Mamba1, hidden: Tensor) -> Tensor:
    """Figure 3 and algorithm 2 of the paper for one sequence (length, d_model), step after step in float64."""
    w = {name: tensor.double() for name, tensor in mixer.state_dict().items()}
    projected = hidden.double() @ w["in_proj.weight"].T + w.get("in_proj.bias", 0)
    x, z = projected.chunk(2, dim=-1)
    d_inner, d_state = w["A_log"].shape
    width = w["conv1d.weight"].shape[-1]
    padded = torch.cat([torch.zeros(width - 1, d_inner, dtype=torch.float64), x])
    state = torch.zeros(d_inner, d_state, dtype=torch.float64)
    out = []
    for t in range(len(x)):
        taps = padded[t : t + width]
        u = F.silu((taps * w["conv1d.weight"][:, 0].T).sum(0) + w.get("conv1d.bias", 0))
        low = w["x_proj.weight"] @ u
        step, B, C = low.split([len(low) - 2 * d_state, d_state, d_state])
        dt = F.softplus(w["dt_proj.weight"] @ step + w["dt_proj.bias"])
        state = torch.exp(-dt[:, None] * w["A_log"].exp()) * state + (dt * u)[:, None] * B
        y = (state @ C + w["D"] * u) * F.silu(z[t])
        out.append(w["out_proj.weight"] @ y + w.get("out_proj.bias", 0))
    return torch.stack(out)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("conv_bias", "proj_bias"), [(True, False), (False, True)])
def test_is_the_formula_of_the_paper(backend: str, conv_bias: bool, proj_bias: bool) -> None:
    torch.manual_seed(0)
    config = StackConfig(
        12, 1, conv_bias=conv_bias, proj_bias=proj_bias, d_state=5, d_conv=3, dt_rank=2, backend=backend
    )
    mixer = enliven(Mamba1(config), 1)
    hidden = torch.randn(1, 23, 12)
    with torch.no_grad():
        torch.testing.assert_close(mixer(hidden)[0][0].double(), by_hand(mixer, hidden[0]), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_reverse_is_the_flipped_sequence(backend: str) -> None:
    torch.manual_seed(1)
    mixer = enliven(Mamba1(StackConfig(10, 1, backend=backend)).double(), 2)
    hidden = torch.randn(2, 17, 10, dtype=torch.float64)
    backwards, state = mixer(hidden, reverse=True)
    flipped, same_state = mixer(hidden.flip(1))
    torch.testing.assert_close(backwards, flipped.flip(1), atol=1e-12, rtol=0)
    torch.testing.assert_close(state.scan, same_state.scan, atol=1e-12, rtol=0)
    torch.testing.assert_close(state.conv, same_state.conv, atol=1e-12, rtol=0)


def test_initialisation_has_the_authors_ranges() -> None:
    torch.manual_seed(2)
    config = StackConfig(256, 1, dt_min=0.002, dt_max=0.05, dt_scale=0.7, d_state=6)
    mixer = Mamba1(config)
    torch.testing.assert_close(mixer.A_log.exp(), torch.arange(1.0, 7.0).expand(512, 6))
    assert torch.equal(mixer.D, torch.ones(512))
    step = F.softplus(mixer.dt_proj.bias.detach())
    assert 0.002 * 0.999 <= step.min() < 0.0025
    assert 0.04 < step.max() <= 0.05 * 1.001
    # Log-uniform: the median is the geometric mean of the ends (sampling error about 7 %).
    assert step.median().item() == pytest.approx(math.sqrt(0.002 * 0.05), rel=0.3)
    bound = 0.7 * 16**-0.5
    assert 0.99 * bound < mixer.dt_proj.weight.abs().max() <= bound
    assert mixer.dt_proj.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_step_floor_holds() -> None:
    torch.manual_seed(3)
    mixer = Mamba1(StackConfig(64, 1, dt_min=1e-6, dt_max=0.1, dt_init_floor=0.01))
    assert F.softplus(mixer.dt_proj.bias).min().item() == pytest.approx(0.01, rel=1e-4)


def test_inverse_softplus_inverts() -> None:
    x = torch.logspace(-5, 1, 200, dtype=torch.float64)
    torch.testing.assert_close(F.softplus(inverse_softplus(x)), x, rtol=1e-9, atol=0)


def test_time_scales_are_marked_against_decay() -> None:
    mixer = Mamba1(StackConfig(8, 1))
    marked = {name for name, parameter in mixer.named_parameters() if getattr(parameter, "_no_weight_decay", False)}
    assert marked == {"A_log", "D", "dt_proj.bias"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_every_weight_and_state(backend: str) -> None:
    torch.manual_seed(4)
    mixer = enliven(Mamba1(StackConfig(3, 1, d_state=2, d_conv=2, dt_rank=2, backend=backend)).double(), 5)
    names = [name for name, _ in mixer.named_parameters()]
    weights = [parameter.detach().requires_grad_() for parameter in mixer.parameters()]
    hidden = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    conv = torch.randn(2, 1, 6, dtype=torch.float64, requires_grad=True)
    scan = torch.randn(2, 6, 2, dtype=torch.float64, requires_grad=True)

    def run(hidden: Tensor, conv: Tensor, scan: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        arguments = (hidden, LayerState(conv, scan))
        out, state = torch.func.functional_call(mixer, dict(zip(names, weights)), arguments)
        return out, state.conv, state.scan

    assert torch.autograd.gradcheck(run, (hidden, conv, scan, *weights))


@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_autocast_errs_by_rounding_alone_and_keeps_float32_states(backend: str) -> None:
    torch.manual_seed(5)
    mixer = enliven(Mamba1(StackConfig(32, 1, backend=backend)), 6)
    hidden = torch.randn(2, 40, 32)
    with torch.no_grad():
        exact, _ = mixer(hidden)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            narrow, state = mixer(hidden)
    assert narrow.dtype == torch.bfloat16
    assert state.scan.dtype == torch.float32
    assert state.conv.dtype == torch.bfloat16
    # Five roundings of 2^-9 relative size in a row; wrong handling of a bias or of A errs by far more.
    assert (narrow.float() - exact).norm() / exact.norm() < 5 * 2**-8
