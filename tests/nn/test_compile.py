"""A whole stack under torch.compile: one graph, the same numbers, the same gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from genossm.nn import Stack, StackConfig

CONFIGS: dict[str, dict[str, Any]] = {
    "causal": {},
    "equivariant": {"direction": "bidirectional", "objective": "masked", "reverse_complement": "equivariant"},
    "untied": {"direction": "bidirectional", "objective": "masked", "tie_directions": False},
}


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_one_graph_and_the_eager_numbers(name: str, autocast: bool) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    config = StackConfig(d_model=16, n_layer=2, **CONFIGS[name])
    stack = Stack(config, torch.arange(16).flip(0) if config.equivariant else None)
    compiled = torch.compile(stack, fullgraph=True, backend="aot_eager")
    ids = torch.randint(0, 16, (2, 37))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected, found = stack(ids), compiled(ids)
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if autocast else {}
    torch.testing.assert_close(found, expected, **tolerance)
    parameters = list(stack.parameters())
    weight = torch.randn(expected.shape)
    for plain, traced in zip(
        torch.autograd.grad(expected, parameters, weight), torch.autograd.grad(found, parameters, weight), strict=True
    ):
        torch.testing.assert_close(traced, plain, **tolerance)
