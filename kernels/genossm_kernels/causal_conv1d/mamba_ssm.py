"""`causal_conv1d` by the package of that name, which mamba-ssm uses: a second opinion, never chosen by `auto`."""

from __future__ import annotations

import torch
from causal_conv1d import causal_conv1d_fn  # pyright: ignore[reportMissingImports]
from torch import Tensor

from genossm_kernels.causal_conv1d.contract import ConvArguments, ConvCall

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_WIDTHS = (2, 3, 4)


def unavailable(call: ConvCall) -> str | None:
    """None if the package computes such calls, else what it lacks."""
    if call.device.type != "cuda":
        return f"the tensors are on {call.device}, and causal-conv1d runs on CUDA devices alone"
    if call.dtype not in _DTYPES:
        return f"causal-conv1d takes float32, bfloat16 and float16, not {call.dtype}"
    if call.width not in _WIDTHS:
        return f"causal-conv1d takes widths of 2 to 4, not {call.width}"
    if call.with_initial_state:
        return "causal-conv1d takes an initial state in another layout, which is not tried here"
    if call.with_seq_idx:
        return "causal-conv1d reads seq_idx as names of sequences and not as changes"
    if len(call.reverse) > 1:
        return "causal-conv1d runs all channels in one direction"
    return None


def run(arguments: ConvArguments) -> tuple[Tensor, Tensor]:
    """y and the last inputs in processing order."""
    a, (reverse,) = arguments, arguments.reverse
    x = a.x.flip(1) if reverse else a.x
    activation = "silu" if a.silu else None
    y = causal_conv1d_fn(x.transpose(1, 2).contiguous(), a.weight, a.bias, activation=activation).transpose(1, 2)
    tail = a.weight.shape[1] - 1
    padded = torch.nn.functional.pad(x[:, -tail:], (0, 0, max(0, tail - x.shape[1]), 0))
    return (y.flip(1) if reverse else y).contiguous(), padded
