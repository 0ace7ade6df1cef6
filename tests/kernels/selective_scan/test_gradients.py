"""The hand-written backward pass against finite differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from genossm_kernels import selective_scan
from genossm_kernels.testing import scan_inputs


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("reverse", [False, (True, False)])
@pytest.mark.parametrize("packed", [False, True])
def test_every_argument_s_gradient(backend: str, reverse: Any, packed: bool) -> None:
    inputs = scan_inputs(batch=2, length=5, channels=4, states=2, groups=2, packed=packed)
    index = inputs.pop("seq_idx", None)
    names = list(inputs)
    assert {"u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state"} == set(names)

    def function(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return selective_scan(
            **dict(zip(names, tensors, strict=True)),
            seq_idx=index,
            reverse=reverse,
            return_final_state=True,
            backend=backend,
        )

    assert torch.autograd.gradcheck(function, [inputs[name].requires_grad_() for name in names], fast_mode=False)


def test_across_chunks_and_without_options() -> None:
    """Two chunks of the backward pass, and no bias, skip, gate, softplus or state."""
    inputs = scan_inputs(length=35, channels=2, states=2, initial_state=False)
    tensors = [inputs[name].requires_grad_() for name in ("u", "delta", "A", "B", "C")]
    tensors[1] = (0.2 * inputs["delta"].detach().abs() + 0.05).requires_grad_()

    def function(*tensors: torch.Tensor) -> torch.Tensor:
        return selective_scan(*tensors, delta_softplus=False, backend="cpu")

    assert torch.autograd.gradcheck(function, tensors, fast_mode=True)


@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state"])
def test_one_argument_alone_may_ask_for_its_gradient(name: str) -> None:
    inputs = scan_inputs(length=9, channels=4, states=2)
    whole = {key: tensor.clone().requires_grad_() for key, tensor in inputs.items()}
    selective_scan(**whole, backend="cpu").square().sum().backward()
    alone = inputs | {name: inputs[name].clone().requires_grad_()}
    selective_scan(**alone, backend="cpu").square().sum().backward()
    assert torch.equal(alone[name].grad, whole[name].grad)
