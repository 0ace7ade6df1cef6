"""The definition of `selective_scan`: one step after the other, differentiated by PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genossm_kernels.selective_scan.contract import ScanArguments, ScanCall


def unavailable(call: ScanCall) -> str | None:  # noqa: ARG001  (part of the contract)
    return None


def run(arguments: ScanArguments) -> tuple[Tensor, Tensor]:
    """y and the final state, block of channels by block of channels."""
    channels = arguments.u.shape[-1]
    size = channels // len(arguments.reverse)
    blocks = [
        _run_block(arguments, slice(index * size, (index + 1) * size), reverse)
        for index, reverse in enumerate(arguments.reverse)
    ]
    y = torch.cat([y for y, _ in blocks], dim=-1)
    final_state = torch.cat([state for _, state in blocks], dim=1)
    return y.to(arguments.u.dtype), final_state


def _run_block(arguments: ScanArguments, block: slice, reverse: bool) -> tuple[Tensor, Tensor]:
    dtype = arguments.state_dtype
    batch, length, channels = arguments.u.shape
    repeats = channels // arguments.B.shape[2]
    u = arguments.u[..., block].to(dtype)
    A = arguments.A[block]
    B = arguments.B.repeat_interleave(repeats, dim=2)[:, :, block].to(dtype)
    C = arguments.C.repeat_interleave(repeats, dim=2)[:, :, block].to(dtype)
    delta = arguments.delta[..., block].to(dtype)
    if arguments.delta_bias is not None:
        delta = delta + arguments.delta_bias[block]
    if arguments.delta_softplus:
        delta = F.softplus(delta)

    if arguments.initial_state is None:
        state = torch.zeros(batch, *A.shape, dtype=dtype, device=u.device)
    else:
        state = arguments.initial_state[:, block]
    outputs: list[Tensor] = [u] * length
    u_at, delta_at, B_at, C_at = (tensor.unbind(1) for tensor in (u, delta, B, C))
    previous = None
    for position in reversed(range(length)) if reverse else range(length):
        if arguments.seq_idx is not None and previous is not None:
            same = arguments.seq_idx[:, position] == arguments.seq_idx[:, previous]
            state = torch.where(same[:, None, None], state, torch.zeros_like(state))
        step = delta_at[position][..., None]
        state = torch.exp(step * A) * state + step * B_at[position] * u_at[position][..., None]
        outputs[position] = (state * C_at[position]).sum(-1)
        previous = position
    y = torch.stack(outputs, dim=1)

    if arguments.D is not None:
        y = y + arguments.D[block] * u
    if arguments.z is not None:
        y = y * F.silu(arguments.z[..., block].to(dtype))
    return y, state
