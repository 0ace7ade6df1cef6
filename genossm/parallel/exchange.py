"""What neighbouring parts hand to one another, and the gradients that they hand back.

Every collective stands in the graph of every rank, needed there or not: ranks whose backward passes met them in another
order would wait for one another for ever.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from genossm.parallel.group import ContextGroup


class EnteringInputs(torch.autograd.Function):
    """(x, group, count, reverse) to x itself and the last `count` inputs of the rank before, zeros at the beginning.

    The gradient of what went to the next rank is added to that of x in place: zeros of the size of x, which slicing
    would make, are a gigabyte at a million positions. The operators that read x give a gradient of their own memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ContextGroup, count: int, reverse: bool) -> tuple[Tensor, Tensor]:
        ctx.group, ctx.count, ctx.reverse = group, count, reverse
        leaving = x[:, :count].flip(1) if reverse else x[:, x.shape[1] - count :]
        before = group.processed_before(reverse=reverse)
        tails = group.gather(leaving)
        entering = tails[before[-1]] if before else torch.zeros_like(tails[0])
        return x.view_as(x), entering

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_x: Tensor, grad_entering: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        group, count, reverse = ctx.group, ctx.count, ctx.reverse
        grads = group.gather(grad_entering)
        # Who reads after this rank is who reads before it the other way.
        after = group.processed_before(reverse=not reverse)
        if after:
            owed = grads[after[-1]]
            if reverse:
                grad_x[:, :count] += owed.flip(1)
            else:
                grad_x[:, grad_x.shape[1] - count :] += owed
        return grad_x, None, None, None


class EnteringState(torch.autograd.Function):
    """(decay, added, group, reverse) to the state that enters this rank's part.

    A part maps the state that enters it to decay * state + added. All ranks gather these pairs, and each puts those of
    the parts before it together. Backward is the mirror image: ranks gather the gradients of entering states, and each
    puts together, from the far end, what the parts after it want of the state that leaves here.
    """

    @staticmethod
    def forward(
        ctx: Any,
        decay: Float[Tensor, "batch d_inner d_state"],
        added: Float[Tensor, "batch d_inner d_state"],
        group: ContextGroup,
        reverse: bool,
    ) -> Float[Tensor, "batch d_inner d_state"]:
        pairs = group.gather(torch.stack([decay, added]))
        entering = torch.zeros_like(added)
        for rank in group.processed_before(reverse=reverse):
            decay_there, added_there = pairs[rank]
            entering = decay_there * entering + added_there
        ctx.group, ctx.reverse = group, reverse
        ctx.save_for_backward(entering, torch.stack([pair[0] for pair in pairs]))
        return entering

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_entering: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        entering, decays = ctx.saved_tensors
        grads = ctx.group.gather(grad_entering)
        grad_leaving = torch.zeros_like(grad_entering)
        for rank in ctx.group.processed_before(reverse=not ctx.reverse):
            grad_leaving = grads[rank] + decays[rank] * grad_leaving
        return grad_leaving * entering, grad_leaving, None, None
