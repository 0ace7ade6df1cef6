"""The table of token embeddings, whose gradient on a GPU has the same bits every time."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from genossm_kernels.look_up import take_rows

_CELLS = 1 << 24  # of the matrix of ids that is held at once: 64 MB


class TokenEmbedding(nn.Embedding):
    """A row of the table for every id.

    PyTorch's own gradient on a GPU adds up the tokens of an id in any order: two equal runs would part after one step,
    and a resumed run would not go on as the first one did. Here it is a matrix product, whose order is fixed.
    """

    def forward(self, input: Int[Tensor, "*any"]) -> Float[Tensor, "*any d_model"]:
        if input.is_cuda and not torch.compiler.is_compiling():
            return (look_up if torch.is_grad_enabled() else take_rows)(self.weight, input)
        return super().forward(input)


def look_up(table: Float[Tensor, "vocab d_model"], ids: Int[Tensor, "*any"]) -> Float[Tensor, "*any d_model"]:
    """`table[ids]`, with the gradient of the table summed in a fixed order, in float32 or wider."""
    return _LookUp.apply(table, ids)  # type: ignore[return-value]


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.vocab, ctx.dtype = len(table), table.dtype
        return take_rows(table, ids)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (ids,) = ctx.saved_tensors
        with torch.autocast(gradient.device.type, enabled=False):
            return _sums_by_id(gradient.flatten(0, -2), ids.flatten(), ctx.vocab).to(ctx.dtype), None


def _sums_by_id(rows: Tensor, ids: Tensor, vocab: int) -> Tensor:
    """(vocab, d_model): the sum of the rows of each id."""
    wide = torch.promote_types(rows.dtype, torch.float32)
    names = torch.arange(vocab, device=ids.device)[:, None]
    total = rows.new_zeros((vocab, rows.shape[-1]), dtype=wide)
    step = max(1, _CELLS // vocab)
    for some_rows, some_ids in zip(rows.split(step), ids.split(step), strict=True):
        total.addmm_((names == some_ids).to(wide), some_rows.to(wide))
    return total
