"""`causal_conv1d` in plain PyTorch, for any device: one shifted product a tap, differentiable, slow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genossm_kernels.causal_conv1d.contract import ConvArguments, ConvCall


def unavailable(call: ConvCall) -> str | None:  # noqa: ARG001  (part of the contract)
    return None


def run(arguments: ConvArguments) -> tuple[Tensor, Tensor]:
    """y and the final state, block of channels by block of channels."""
    size = arguments.x.shape[-1] // len(arguments.reverse)
    blocks = [
        _run_block(arguments, slice(index * size, (index + 1) * size), reverse)
        for index, reverse in enumerate(arguments.reverse)
    ]
    return torch.cat([y for y, _ in blocks], dim=-1), torch.cat([tail for _, tail in blocks], dim=-1)


def _run_block(arguments: ConvArguments, block: slice, reverse: bool) -> tuple[Tensor, Tensor]:
    x, weight = arguments.x[..., block], arguments.weight[block]
    seq_idx = arguments.seq_idx
    if reverse:
        x = x.flip(1)
        seq_idx = None if seq_idx is None else seq_idx.flip(1)
    batch, length, channels = x.shape
    reach = weight.shape[1] - 1
    before = x.new_zeros(batch, reach, channels)
    if arguments.initial_state is not None:
        before = arguments.initial_state[..., block]
    # Widened once, so that the taps' gradients meet in the wide dtype.
    padded = torch.cat([before, x], dim=1).to(arguments.state_dtype)
    runs = None if seq_idx is None else _run_numbers(seq_idx, reach)

    total = torch.zeros(batch, length, channels, dtype=arguments.state_dtype, device=x.device)
    if arguments.bias is not None:
        total = total + arguments.bias[block]
    for tap in range(reach + 1):
        term = weight[:, tap] * padded[:, tap : tap + length]
        if runs is not None:
            same = runs[:, tap : tap + length] == runs[:, reach:]
            term = torch.where(same[..., None], term, 0.0)
        total = total + term
    y = (F.silu(total) if arguments.silu else total).to(x.dtype)

    tail = padded[:, length:].to(x.dtype)
    if runs is not None:
        tail = torch.where((runs[:, length:] == runs[:, -1:])[..., None], tail, 0.0)
    return y.flip(1) if reverse else y, tail


def _run_numbers(seq_idx: Tensor, reach: int) -> Tensor:
    """How many changes came before each position; the initial state belongs to the first run."""
    changed = (seq_idx[:, 1:] != seq_idx[:, :-1]).long()
    return F.pad(changed.cumsum(1), (reach + 1, 0))
