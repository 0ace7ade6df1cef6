"""A whole training step on a GPU has the same bits every time: what exact resume rests on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.models import SequenceModel, StackConfig

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
BOTH: dict[str, Any] = {"direction": "bidirectional", "objective": "masked", "reverse_complement": "equivariant"}
MODELS: dict[str, dict[str, Any]] = {
    "causal": {"d_model": 192, "n_layer": 4},
    "both ways": {"d_model": 128, "n_layer": 2, "direction": "bidirectional", "objective": "masked"},
    "both strands": {"d_model": 256, "n_layer": 2, **BOTH},
    "layer norms": {"d_model": 96, "n_layer": 2, "norm": "layer"},
}


def step(model: SequenceModel, ids: Tensor) -> dict[str, Tensor]:
    """Loss and gradients, under autocast."""
    model.zero_grad(set_to_none=True)
    with torch.autocast("cuda", torch.bfloat16):
        logits = model(ids).logits
    loss = F.cross_entropy(logits[..., 7:11].reshape(-1, 4).float(), ids.reshape(-1) - 7, reduction="sum")
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("batch", "length"), [(8, 1024), (1, 131_072)])
def test_a_training_step_has_the_same_bits(name: str, batch: int, length: int) -> None:
    torch.manual_seed(0)
    model = SequenceModel(StackConfig(d_conv=16, **MODELS[name])).cuda()
    ids = torch.randint(7, 11, (batch, length), device="cuda")
    first = step(model, ids)
    for size in (12_345, 6_000_001):
        junk = torch.full((size,), torch.nan, device="cuda")  # other addresses, and no luck with what memory holds
        again = step(model, ids)
        del junk
        assert [key for key in first if not torch.equal(first[key], again[key])] == []
