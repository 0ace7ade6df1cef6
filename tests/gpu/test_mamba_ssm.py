"""Our kernels against mamba-ssm's, where it is installed: outputs, final states, gradients, both directions."""

from __future__ import annotations

import pytest
import torch

from genossm.nn import Mamba1, StackConfig
from genossm_kernels import selective_scan
from genossm_kernels.testing import cast, scan_inputs, scan_results

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("default"),  # what its Triton code and its autocast decorators say is not ours
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_scan_agrees(reverse: bool, dtype: torch.dtype) -> None:
    pytest.importorskip("mamba_ssm")
    inputs = scan_inputs("trained", batch=2, length=3000, channels=64, groups=2, initial_state=False)
    narrow = {name: tensor.cuda() for name, tensor in cast(inputs, dtype).items()}

    def run(backend: str) -> dict[str, torch.Tensor]:
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in narrow.items()}
        y, state = selective_scan(**leaves, reverse=reverse, return_final_state=True, backend=backend)
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
        found = torch.autograd.grad(y, list(leaves.values()), weight)
        return {"y": y.detach(), "state": state.detach()} | dict(zip(leaves, found, strict=True))

    exact = scan_results(inputs, reverse=reverse, backend="cpu", gradients=False)
    ours, theirs = run("cuda"), run("mamba_ssm")
    tolerance = 1e-5 if dtype == torch.float32 else 8e-3
    for name, found in ours.items():
        error = (found.float() - theirs[name].float()).norm() / theirs[name].float().norm()
        assert error < tolerance, f"{name}: {error:.1e}"
    for found in (ours, theirs):
        error = (found["y"].double().cpu() - exact["y"]).norm() / exact["y"].norm()
        assert error < tolerance


def test_a_layer_runs_on_it() -> None:
    pytest.importorskip("mamba_ssm")
    pytest.importorskip("causal_conv1d")
    found = []
    hidden = torch.randn(2, 500, 64, device="cuda")
    for backend in ("cuda", "mamba_ssm"):
        torch.manual_seed(0)
        mixer = Mamba1(StackConfig(d_model=64, n_layer=1, backend=backend)).cuda()  # type: ignore[arg-type]
        y = mixer(hidden, reverse=True)[0]
        y.square().sum().backward()
        found.append((y, mixer.A_log.grad, mixer.in_proj.weight.grad))
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() < 1e-3 * theirs.norm()  # its matrix products may be in TF32
