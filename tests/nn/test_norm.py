"""Norms against their formulas in float64, and in what dtype they work."""

from __future__ import annotations

import pytest
import torch

from genossm.nn import LayerNorm, RMSNorm
from genossm.nn.norm import at_least_float32


def formula(x: torch.Tensor, norm: RMSNorm | LayerNorm) -> torch.Tensor:
    x, weight = x.double(), norm.weight.double()
    if isinstance(norm, RMSNorm):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + norm.eps) * weight
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + norm.eps) * weight + norm.bias.double()


def random_norm(kind: type[RMSNorm | LayerNorm], eps: float) -> RMSNorm | LayerNorm:
    norm = kind(48, eps)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    return norm


@pytest.mark.parametrize("kind", [RMSNorm, LayerNorm])
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_matches_the_formula(kind: type[RMSNorm | LayerNorm], eps: float) -> None:
    torch.manual_seed(3)
    norm = random_norm(kind, eps)
    x = torch.randn(2, 5, 48) * 0.3 + 0.2
    torch.testing.assert_close(norm(x).double(), formula(x, norm), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("kind", [RMSNorm, LayerNorm])
def test_narrow_weights_normalise_a_wide_stream_in_float32(kind: type[RMSNorm | LayerNorm]) -> None:
    torch.manual_seed(4)
    norm = random_norm(kind, 1e-5).to(torch.bfloat16)
    # 1,000 and 1,000.25 are the same number in bfloat16; their difference must survive until the end.
    x = 1000 + torch.randn(3, 48)
    found = norm(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, formula(x, norm).to(torch.bfloat16), atol=0, rtol=2**-7)


def test_at_least_float32() -> None:
    dtypes = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
    found = [at_least_float32(torch.ones(1, dtype=dtype)).dtype for dtype in dtypes]
    assert found == [torch.float32, torch.float32, torch.float32, torch.float64]
