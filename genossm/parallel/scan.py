"""The selective scan over one part of a sequence, all parts at once.

Each rank scans its part from a zero state. Linear as the recurrence is, the state that truly enters adds
C[t] exp(A (dt[1] + ... + dt[t])) state to the outputs, and nothing else: a scan without inputs from that state. It is
run over the part's beginning only, up to where the exponential is below the square of the rounding unit in every
channel: what is left of the state is then as far below rounding as rounding is below the state. Where that comes before
the part's end, nothing that entered leaves it either.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from genossm.nn.norm import at_least_float32
from genossm.parallel.exchange import EnteringState
from genossm.parallel.group import ContextGroup
from genossm_kernels import selective_scan

# -log of the square of the rounding unit, 2^-24 and 2^-53.
_VANISHED = {dtype: -2 * math.log(torch.finfo(dtype).eps / 2) for dtype in (torch.float32, torch.float64)}
_FIRST_LOOK, _CHUNK = 4096, 65536


class Reach(NamedTuple):
    """How far a state is felt that enters a part.   span: where.   whole: over the whole part, and beyond.

    sums: step sizes added up over `span`.
    """

    span: slice
    whole: bool
    sums: Float[Tensor, "batch d_inner"]


def scan_part(
    group: ContextGroup,
    u: Float[Tensor, "batch length d_inner"],
    delta: Float[Tensor, "batch length d_inner"],
    A: Float[Tensor, "d_inner d_state"],
    B: Float[Tensor, "batch length groups d_state"],
    C: Float[Tensor, "batch length groups d_state"],
    D: Float[Tensor, " d_inner"] | None,
    z: Float[Tensor, "batch length d_inner"],
    delta_bias: Float[Tensor, " d_inner"],
    *,
    reverse: bool,
    backend: str,
) -> tuple[Float[Tensor, "batch length d_inner"], Float[Tensor, "batch d_inner d_state"]]:
    """`selective_scan` of one sequence whose parts the ranks of `group` hold, in rank order; collective.

    Returns this part's outputs and, without a gradient, the state that leaves it.
    """
    if torch.is_autocast_enabled(u.device.type) and u.dtype != torch.float64:
        # What the scan does with them, so that the decay is of the same step sizes.
        delta = delta.to(torch.get_autocast_dtype(u.device.type))
    delta_bias = at_least_float32(delta_bias)
    if group.processed_before(reverse=reverse):
        reach = find_reach(delta, delta_bias, A, reverse=reverse)
    else:
        reach = _one_step(delta, reverse=reverse)
    delta, delta_felt, decay = _Steps.apply(delta, delta_bias, A, reach)  # type: ignore[misc]
    (C, C_felt), (z, z_felt) = (_Stretch.apply(tensor, reach.span) for tensor in (C, z))  # type: ignore[misc]
    options: dict[str, Any] = {"reverse": reverse, "backend": backend}
    y, added = selective_scan(u, delta, A, B, C, D, z, delta_bias, return_final_state=True, **options)
    entering = EnteringState.apply(decay, added, group, reverse)
    # Strides of zero: no inputs, and no memory for them.
    no_input = u.new_zeros(1, 1, u.shape[2]).expand_as(delta_felt)
    no_map = B.new_zeros(1, 1, *B.shape[2:]).expand_as(C_felt)
    felt = selective_scan(
        no_input, delta_felt, A, no_map, C_felt, None, z_felt, delta_bias, initial_state=entering, **options
    )
    leaving = torch.addcmul(added.detach(), decay.detach(), entering.detach())
    return _AddOver.apply(y, felt, reach.span), leaving  # type: ignore[return-value]


@torch.no_grad()
def find_reach(delta: Tensor, delta_bias: Tensor, A: Tensor, *, reverse: bool) -> Reach:
    """Add up step sizes from the part's beginning on until no channel feels what entered."""
    batch, length, channels = delta.shape
    dtype = torch.promote_types(delta.dtype, torch.float32)
    slowest = A.detach().abs().amin(dim=1)
    sums = torch.zeros(batch, channels, dtype=dtype, device=delta.device)
    done, target = 0, min(length, _FIRST_LOOK)
    while True:
        while done < target:
            stop = min(target, done + _CHUNK)
            now = slice(length - stop, length - done) if reverse else slice(done, stop)
            sums += _step_sizes(delta[:, now], delta_bias).sum(1)
            done = stop
        exponent = float((sums * slowest).amin())
        if exponent > _VANISHED[dtype]:
            return Reach(slice(length - done, length) if reverse else slice(0, done), False, sums)
        if done == length:
            return Reach(slice(0, length), True, sums)
        # Where it will be there at this pace, and a little further: a look makes a GPU wait.
        pace = exponent / done
        wanted = 1.05 * _VANISHED[dtype] / pace if pace * length > 1 else length
        target = min(length, max(math.ceil(wanted), done + _FIRST_LOOK))


def _one_step(delta: Tensor, *, reverse: bool) -> Reach:
    """For the part that a sequence begins with: what enters is zero, wherever it were felt, and what its decay is
    multiplied with. It takes part in the exchange all the same.
    """
    batch, length, channels = delta.shape
    sums = delta.new_zeros(batch, channels, dtype=torch.promote_types(delta.dtype, torch.float32))
    return Reach(slice(length - 1, length) if reverse else slice(0, 1), False, sums)


def _step_sizes(delta: Tensor, delta_bias: Tensor) -> Tensor:
    # The bias is at least float32, and so is the sum.
    return F.softplus(delta + delta_bias)


class _Steps(torch.autograd.Function):
    """(delta, delta_bias, A, reach) to delta, its stretch within reach, and the decay over the whole part."""

    @staticmethod
    def forward(ctx: Any, delta: Tensor, delta_bias: Tensor, A: Tensor, reach: Reach) -> tuple[Tensor, Tensor, Tensor]:
        ctx.reach = reach
        decay = torch.exp(A * reach.sums[..., None]) if reach.whole else torch.zeros_like(reach.sums[..., None] * A)
        if reach.whole:
            ctx.save_for_backward(delta, delta_bias, A, decay)
        return delta.view_as(delta), delta[:, reach.span], decay

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_delta: Tensor, grad_felt: Tensor, grad_decay: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # In place: what the scan's backward pass gave is nobody else's.
        grad_delta[:, ctx.reach.span] += grad_felt
        if not ctx.reach.whole:
            return grad_delta, None, None, None
        delta, delta_bias, A, decay = ctx.saved_tensors
        grad_exponent = grad_decay * decay
        grad_A = (grad_exponent * ctx.reach.sums[..., None]).sum(0)
        grad_sums = (grad_exponent * A).sum(-1)[:, None]
        grad_bias = torch.zeros_like(delta_bias)
        for first in range(0, delta.shape[1], _CHUNK):
            now = slice(first, first + _CHUNK)
            # The slope of softplus is the logistic function.
            grad_steps = torch.sigmoid_(delta[:, now] + delta_bias).mul_(grad_sums)
            grad_delta[:, now] += grad_steps
            grad_bias += grad_steps.sum((0, 1)).to(grad_bias.dtype)
        return grad_delta, grad_bias, grad_A.to(A.dtype), None


class _Stretch(torch.autograd.Function):
    """A tensor and a stretch of it, whose gradients meet in place, as in `EnteringInputs`."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, span: slice) -> tuple[Tensor, Tensor]:
        ctx.span = span
        return tensor.view_as(tensor), tensor[:, span]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_stretch: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad[:, ctx.span] += grad_stretch
        return grad, None


class _AddOver(torch.autograd.Function):
    """y, changed in place: a stretch is added to."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, added: Tensor, span: slice) -> Tensor:
        ctx.span = span
        ctx.mark_dirty(y)
        y[:, span] += added
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad_y, grad_y[:, ctx.span], None
