"""The embedding's gradient as a matrix product: PyTorch's own, in a fixed order."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import genossm.nn.embedding as embedding
from genossm.nn.embedding import look_up

SHAPES = [((3, 700), 16), ((1,), 5), ((2, 4, 50), 300)]


@pytest.mark.parametrize(("shape", "vocab"), SHAPES)
@pytest.mark.parametrize("cells", [1 << 24, 1000])
def test_values_and_gradient_are_pytorchs(
    shape: tuple[int, ...], vocab: int, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "_CELLS", cells)  # rows in one piece, and in many
    torch.manual_seed(0)
    table = torch.randn(vocab, 12, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(0, vocab, shape, dtype=torch.int32)
    found, expected = look_up(table, ids), F.embedding(ids, table)
    assert torch.equal(found, expected)
    weight = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, table, weight)[0], torch.autograd.grad(expected, table, weight)[0]
    )


def test_narrow_rows_are_added_up_in_float32() -> None:
    """A thousand ones in bfloat16 would stop at 256."""
    table = torch.zeros(4, 3, dtype=torch.bfloat16, requires_grad=True)
    ids = torch.zeros(1000, dtype=torch.int64)
    (gradient,) = torch.autograd.grad(look_up(table, ids).sum(), table)
    assert gradient.dtype == torch.bfloat16
    assert gradient[0].tolist() == [1000.0] * 3
    assert not gradient[1:].any()
