"""The custom operators on a GPU: opcheck, torch.compile with its code generator, a training step in a CUDA graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from genossm.nn import Stack, StackConfig
from genossm_kernels.testing import cast, conv_inputs, scan_inputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    # What PyTorch's compiler says of itself (TF32, deprecations) is not ours.
    pytest.mark.filterwarnings("default"),
]


def on_gpu(inputs: dict[str, torch.Tensor], names: tuple[str, ...], *, gradients: bool) -> list[torch.Tensor | None]:
    found: list[torch.Tensor | None] = []
    for name in names:
        tensor = inputs.get(name)
        if tensor is not None:
            tensor = tensor.cuda()
            tensor.requires_grad_(gradients and tensor.is_floating_point())
        found.append(tensor)
    return found


@pytest.mark.parametrize("gradients", [True, False])
def test_opcheck_of_the_scan(gradients: bool) -> None:
    inputs = cast(scan_inputs(batch=2, length=300, channels=48, groups=2, packed=True), torch.bfloat16)
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state", "seq_idx")
    tensors = on_gpu(inputs, names, gradients=gradients)
    torch.library.opcheck(torch.ops.genossm.selective_scan, (*tensors, True, [True, False], "cuda", gradients))


@pytest.mark.parametrize("gradients", [True, False])
def test_opcheck_of_the_convolution(gradients: bool) -> None:
    inputs = cast(conv_inputs(batch=2, length=300, channels=48, packed=True), torch.bfloat16)
    inputs["initial_state"] = inputs["initial_state"].bfloat16()
    tensors = on_gpu(inputs, ("x", "weight", "bias", "initial_state", "seq_idx"), gradients=gradients)
    torch.library.opcheck(torch.ops.genossm.causal_conv1d, (*tensors, True, [True, False], "cuda"))


def build(**choices: Any) -> Stack:
    torch.manual_seed(0)
    config = StackConfig(d_model=64, n_layer=2, backend="cuda", **choices)
    return Stack(config, torch.arange(16).flip(0) if config.equivariant else None).cuda()


STACKS: dict[str, dict[str, Any]] = {
    "causal": {},
    "equivariant": {"direction": "bidirectional", "objective": "masked", "reverse_complement": "equivariant"},
}


@pytest.mark.parametrize("name", STACKS)
def test_compiled_stack_equals_the_eager_one(name: str) -> None:
    """One graph, with inductor; forward and gradients under autocast, both held to float32.

    Fused, other intermediate results are rounded to bfloat16, and some gradients of two layers are 1.6 % off by such
    rounding either way: the two are not compared with one another, but their distances from float32.
    """
    torch._dynamo.reset()
    stack = build(**STACKS[name])
    compiled = torch.compile(stack, fullgraph=True)
    ids = torch.randint(0, 16, (2, 1000), device="cuda")
    exact = stack(ids)
    with torch.autocast("cuda", torch.bfloat16):
        plain, traced = stack(ids), compiled(ids)
    weight = torch.randn_like(exact)
    names, parameters = zip(*stack.named_parameters(), strict=True)

    def results(output: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (output, *torch.autograd.grad(output, parameters, weight.to(output.dtype)))

    errors = {
        name: tuple(((one.float() - wanted).norm() / wanted.norm()).item() for one in (eager, other))
        for name, wanted, eager, other in zip(
            ("output", *names), results(exact), results(plain), results(traced), strict=True
        )
    }
    assert {name: (eager, other) for name, (eager, other) in errors.items() if not other <= 2 * eager} == {}


def test_a_training_step_captured_and_replayed() -> None:
    """Forward and backward of a whole stack in one CUDA graph, on inputs that change between replays."""
    stack = build(direction="bidirectional", objective="masked")
    ids = torch.randint(0, 16, (1, 777), device="cuda")
    parameters = list(stack.parameters())

    def step() -> tuple[torch.Tensor, ...]:
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            loss = stack(ids).float().square().mean()
        return (loss, *torch.autograd.grad(loss, parameters))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    ids.copy_(torch.randint(0, 16, ids.shape, device="cuda"))
    graph.replay()
    torch.cuda.synchronize()
    # What the library's own sums do with atomics may change the last bits; ours do not.
    for found, expected in zip(captured, step(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
