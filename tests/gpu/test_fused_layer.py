"""The inside of mixers as one step on a GPU: the numbers of the separate steps, the same bits twice, CUDA graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from genossm.nn import StackConfig, fused
from genossm.nn.directions import build_mixer
from genossm.nn.recompute import LEVELS, Recompute, recomputing
from genossm.testing.models import enliven
from genossm_kernels import skinny
from genossm_kernels.causal_conv1d import projected, projecting

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    # What PyTorch says of its own contexts and graphs is not ours.
    pytest.mark.filterwarnings("default"),
]
BOTH: dict[str, Any] = {"direction": "bidirectional", "objective": "masked"}
MIXERS = {"causal": {}, "both": BOTH, "strands": BOTH | {"reverse_complement": "equivariant"}}


def build(name: str, **choices: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    config = StackConfig(n_layer=1, backend="cuda", **({"d_model": 64} | MIXERS[name] | choices))
    return enliven(build_mixer(config), 1).cuda()


def differentiate(
    mixer: torch.nn.Module, level: Recompute = "cheap", *, autocast: bool = False
) -> dict[str, torch.Tensor]:
    width = next(weight for name, weight in mixer.named_parameters() if "in_proj" in name).shape[1]
    g = torch.Generator().manual_seed(1)
    hidden = torch.randn((2, 3000, width), generator=g).cuda().requires_grad_()
    with recomputing(level), torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        y = mixer(hidden)[0]
    weight = torch.randn(y.shape, generator=g).to(y)
    found = torch.autograd.grad(y, [hidden, *mixer.parameters()], weight)
    return dict(zip(("y", "hidden", *dict(mixer.named_parameters())), (y.detach(), *found), strict=True))


@pytest.mark.parametrize("name", MIXERS)
def test_the_numbers_of_the_separate_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mixer = build(name)
    expected = differentiate(mixer)
    monkeypatch.setattr(fused, "FEWEST", 1)
    found = {level: differentiate(mixer, level) for level in LEVELS}
    again = differentiate(mixer)
    for what, tensor in expected.items():
        assert torch.equal(again[what], found["cheap"][what]), what
        for level in LEVELS:
            assert (found[level][what] - tensor).norm() <= 3e-5 * tensor.norm(), (what, level)


@pytest.mark.parametrize("taps", [4, 16])
@pytest.mark.parametrize("name", MIXERS)
def test_under_autocast_it_errs_no_more(name: str, taps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where x_proj is multiplied and differentiated in the kernels of the convolution."""
    mixer = build(name, d_model=128, d_conv=taps, dt_rank=12)
    exact, plain = differentiate(mixer), differentiate(mixer, autocast=True)
    for module in (fused, projected, projecting, skinny):
        monkeypatch.setattr(module, "FEWEST", 1)
    found, again = differentiate(mixer, autocast=True), differentiate(mixer, autocast=True)
    for what, tensor in exact.items():
        scale = tensor.norm()
        error, allowed = (found[what] - tensor).norm(), (plain[what] - tensor).norm()
        assert error <= 1.3 * allowed + 2**-9 * scale, what
        assert torch.equal(again[what], found[what]), what


def test_a_step_captured_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "FEWEST", 1)
    mixer = build("both")
    hidden = torch.randn((1, 3000, 64), device="cuda").requires_grad_()

    def step() -> tuple[torch.Tensor, ...]:
        y = mixer(hidden)[0]
        return (y, *torch.autograd.grad(y.square().mean(), [hidden, *mixer.parameters()]))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        hidden.copy_(torch.randn_like(hidden))
    graph.replay()
    torch.cuda.synchronize()
    for found, expected in zip(captured, step(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
