"""Tensors that are not made until someone needs them: where a kernel can take their parts, no one does.

Without gradients, in long calls on a GPU, and only where nobody looks at the steps in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genossm.nn.watching import watched
from genossm_kernels.look_up import take_rows
from genossm_kernels.operators import intercepted

# Elsewhere, and for fewer tokens, a pass over memory is not what takes the time.
DEVICES, FEWEST = frozenset({"cuda"}), 1 << 15
_TOKENS_PER_ROW = 64  # of a table whose every row is computed with


@dataclass(frozen=True, eq=False)
class LookedUp:
    """`table[ids]`: functions of single rows are found once a row of the table."""

    table: Float[Tensor, "vocab channels"]
    ids: Int[Tensor, "batch length"]

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.ids.shape, self.table.shape[-1])

    def through(self, function: Callable[[Tensor], Tensor]) -> LookedUp:
        return LookedUp(function(self.table), self.ids)

    def rows(self) -> Float[Tensor, "batch length channels"]:
        return take_rows(self.table, self.ids)


@dataclass(frozen=True, eq=False)
class Unprojected:
    """What a mixer put out, and the projection that is to follow."""

    y: Float[Tensor, "batch length d_inner"]
    out_proj: nn.Linear

    def projected(self) -> Float[Tensor, "batch length channels"]:
        return self.out_proj(self.y)


def made(tensor: Tensor | LookedUp | Unprojected) -> Tensor:
    """The tensor itself."""
    if isinstance(tensor, LookedUp):
        return tensor.rows()
    return tensor.projected() if isinstance(tensor, Unprojected) else tensor


def can_wait(tensor: Tensor, tokens: int) -> bool:
    """Whether in such calls it may be left to later steps what they make of their inputs."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or intercepted(tensor):
        return False
    return tensor.device.type in DEVICES and tokens >= FEWEST


def looked_up(table: Tensor, ids: Tensor) -> LookedUp | None:
    """For a table with far fewer rows than there are ids."""
    few = len(table) * _TOKENS_PER_ROW <= ids.numel()
    return LookedUp(table, ids.contiguous()) if few and can_wait(table, ids.numel()) else None


def plain_linear(module: nn.Module) -> bool:
    """A matrix product and nothing else, which no one listens to."""
    return (
        type(module) is nn.Linear
        and not watched(module)
        and module.bias is None
        and type(module.weight) in (Tensor, nn.Parameter)
    )
