"""`selective_scan` in plain PyTorch, for any device: correct, differentiable, slow.

The sequence is cut into about sqrt(length) segments that walk side by side. A first walk from zero gives what each
segment adds to the state, a short loop over segments turns this into the state that enters each of them, and a
second walk gives the outputs. Python thus takes 3 sqrt(length) steps. Runs of steps are recomputed in the
backward pass, so that memory holds one state every `_STEPS_KEPT` positions and not one a position.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from genossm_kernels.selective_scan.contract import ScanArguments, ScanCall

_UNSEGMENTED_LENGTH = 64
_STEPS_KEPT = 32


def unavailable(call: ScanCall) -> str | None:  # noqa: ARG001  (part of the contract)
    return None


def run(arguments: ScanArguments) -> tuple[Tensor, Tensor]:
    """y and the final state, piece by piece of channels that share a group and a direction."""
    channels = arguments.u.shape[-1]
    group_size = channels // arguments.B.shape[2]
    block_size = channels // len(arguments.reverse)
    edges = sorted({*range(0, channels + 1, group_size), *range(0, channels + 1, block_size)})
    pieces = [
        _run_piece(arguments, slice(start, stop), start // group_size, arguments.reverse[start // block_size])
        for start, stop in itertools.pairwise(edges)
    ]
    y = torch.cat([y for y, _ in pieces], dim=-1)
    return y.to(arguments.u.dtype), torch.cat([state for _, state in pieces], dim=1)


def _run_piece(arguments: ScanArguments, piece: slice, group: int, reverse: bool) -> tuple[Tensor, Tensor]:
    dtype = arguments.state_dtype
    u = arguments.u[..., piece].to(dtype)
    delta = arguments.delta[..., piece].to(dtype)
    B, C = arguments.B[:, :, group].to(dtype), arguments.C[:, :, group].to(dtype)
    seq_idx = arguments.seq_idx
    if arguments.delta_bias is not None:
        delta = delta + arguments.delta_bias[piece]
    if arguments.delta_softplus:
        delta = F.softplus(delta)
    drive = delta * u
    if reverse:
        delta, drive, B, C = delta.flip(1), drive.flip(1), B.flip(1), C.flip(1)
        seq_idx = None if seq_idx is None else seq_idx.flip(1)
    keep = torch.ones(u.shape[:2], dtype=dtype, device=u.device)
    if seq_idx is not None:
        keep[:, 1:] = (seq_idx[:, 1:] == seq_idx[:, :-1]).to(dtype)
    if arguments.initial_state is None:
        state = torch.zeros(u.shape[0], u.shape[2], B.shape[-1], dtype=dtype, device=u.device)
    else:
        state = arguments.initial_state[:, piece]

    y, state = _scan(delta, drive, arguments.A[piece], B, C, keep, state)
    if reverse:
        y = y.flip(1)
    if arguments.D is not None:
        y = y + arguments.D[piece] * u
    if arguments.z is not None:
        y = y * F.silu(arguments.z[..., piece].to(dtype))
    return y, state


def _scan(
    delta: Tensor, drive: Tensor, A: Tensor, B: Tensor, C: Tensor, keep: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    length = delta.shape[1]
    steps = length if length <= _UNSEGMENTED_LENGTH else math.isqrt(length - 1) + 1
    segments = -(-length // steps)
    padding = segments * steps - length
    # A padded step has delta 0 and keep 1: the state passes it unchanged.
    delta, drive, B, C = (_segmented(tensor, padding, steps, 0.0) for tensor in (delta, drive, B, C))
    keep = _segmented(keep[..., None], padding, steps, 1.0)

    entering = state[:, None]
    if segments > 1:
        added = torch.zeros(delta.shape[0], segments, *A.shape, dtype=A.dtype, device=A.device)
        added, _ = _walk(added, delta, drive, A, B, C, keep)
        decay = torch.exp(delta.sum(2)[..., None] * A) * keep.prod(2)[..., None]
        entries = [state]
        for decay_here, added_here in zip(decay.unbind(1)[:-1], added.unbind(1)[:-1], strict=True):
            entries.append(decay_here * entries[-1] + added_here)
        entering = torch.stack(entries, dim=1)
    leaving, y = _walk(entering, delta, drive, A, B, C, keep)
    return y.flatten(1, 2)[:, :length], leaving[:, -1]


def _segmented(tensor: Tensor, padding: int, steps: int, value: float) -> Tensor:
    return F.pad(tensor, (0, 0, 0, padding), value=value).unflatten(1, (-1, steps))


def _walk(
    state: Tensor, delta: Tensor, drive: Tensor, A: Tensor, B: Tensor, C: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor]:
    """Walk all segments from their entering states: the leaving states and y (batch, segment, step, channel)."""
    outputs = []
    runs = (tensor.split(_STEPS_KEPT, dim=2) for tensor in (delta, drive, B, C, keep))
    for delta_run, drive_run, B_run, C_run, keep_run in zip(*runs, strict=True):
        inputs = (state, delta_run, drive_run, A, B_run, C_run, keep_run)
        state, y = checkpoint(_walk_run, *inputs, use_reentrant=False, preserve_rng_state=False)  # type: ignore[misc]
        outputs.append(y)
    return state, torch.cat(outputs, dim=2)


def _walk_run(
    state: Tensor, delta: Tensor, drive: Tensor, A: Tensor, B: Tensor, C: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor]:
    outputs = []
    steps = (tensor.unbind(2) for tensor in (delta, drive, B, C, keep))
    for delta_now, drive_now, B_now, C_now, keep_now in zip(*steps, strict=True):
        decay = torch.exp(delta_now[..., None] * A) * keep_now[..., None]
        state = decay * state + drive_now[..., None] * B_now[..., None, :]
        outputs.append((state @ C_now[..., None]).squeeze(-1))
    return state, torch.stack(outputs, dim=2)
