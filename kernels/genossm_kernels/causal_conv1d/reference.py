"""The definition of `causal_conv1d`: one step after the other, differentiated by PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genossm_kernels.causal_conv1d.contract import ConvArguments, ConvCall


def unavailable(call: ConvCall) -> str | None:  # noqa: ARG001  (part of the contract)
    return None


def run(arguments: ConvArguments) -> tuple[Tensor, Tensor]:
    """y and the final state, block of channels by block of channels."""
    channels = arguments.x.shape[-1]
    size = channels // len(arguments.reverse)
    blocks = [
        _run_block(arguments, slice(index * size, (index + 1) * size), reverse)
        for index, reverse in enumerate(arguments.reverse)
    ]
    return torch.cat([y for y, _ in blocks], dim=-1), torch.cat([tail for _, tail in blocks], dim=-1)


def _run_block(arguments: ConvArguments, block: slice, reverse: bool) -> tuple[Tensor, Tensor]:
    dtype = arguments.state_dtype
    x = arguments.x[..., block].to(dtype)
    weight = arguments.weight[block]
    batch, length, channels = x.shape
    width = weight.shape[1]
    # The window holds the last `width` inputs, oldest first.
    zeros = torch.zeros(batch, channels, dtype=dtype, device=x.device)
    window = [zeros] * width
    if arguments.initial_state is not None:
        window = [zeros, *arguments.initial_state[..., block].to(dtype).unbind(1)]
    outputs: list[Tensor] = [zeros] * length
    previous = None
    for position in reversed(range(length)) if reverse else range(length):
        if arguments.seq_idx is not None and previous is not None:
            same = (arguments.seq_idx[:, position] == arguments.seq_idx[:, previous])[:, None]
            window = [torch.where(same, value, zeros) for value in window]
        window = [*window[1:], x[:, position]]
        total = zeros
        if arguments.bias is not None:
            total = total + arguments.bias[block]
        for tap in range(width):
            total = total + weight[:, tap] * window[tap]
        outputs[position] = F.silu(total) if arguments.silu else total
        previous = position
    tail = torch.stack(window[1:], dim=1) if width > 1 else x.new_zeros(batch, 0, channels)
    return torch.stack(outputs, dim=1).to(arguments.x.dtype), tail.to(arguments.x.dtype)
