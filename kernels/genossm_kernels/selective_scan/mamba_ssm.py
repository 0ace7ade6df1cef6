"""`selective_scan` by the mamba-ssm package, where it is installed: a second opinion, never chosen by `auto`.

It wants channels before positions and knows one direction: inputs are copied into its layout and flipped.
"""

from __future__ import annotations

from typing import Any

import torch
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # pyright: ignore[reportMissingImports]
from torch import Tensor

from genossm_kernels.errors import KernelError
from genossm_kernels.selective_scan.contract import ScanArguments, ScanCall

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def unavailable(call: ScanCall) -> str | None:
    """None if mamba-ssm computes such calls, else what it lacks."""
    if call.device.type != "cuda":
        return f"the tensors are on {call.device}, and mamba-ssm runs on CUDA devices alone"
    if call.dtype not in _DTYPES:
        return f"mamba-ssm takes float32, bfloat16 and float16, not {call.dtype}"
    if call.with_initial_state:
        return "mamba-ssm takes no initial state"
    if call.with_seq_idx:
        return "mamba-ssm takes no seq_idx"
    if len(call.reverse) > 1:
        return "mamba-ssm runs all channels in one direction"
    return None


def run(arguments: ScanArguments) -> tuple[Tensor, Tensor]:
    """y and the final state; a gradient of the final state is an error, since mamba-ssm would leave it out."""
    a, (reverse,) = arguments, arguments.reverse

    def moved(tensor: Tensor) -> Tensor:
        """(batch, length, ...) to (batch, ..., length), in the order of the direction."""
        last = tensor.movedim(1, -1)
        return (last.flip(-1) if reverse else last).contiguous()

    z = None if a.z is None else moved(a.z)
    maps = (moved(a.B), moved(a.C))
    y, state = selective_scan_fn(
        moved(a.u), moved(a.delta), a.A, *maps, a.D, z, a.delta_bias, a.delta_softplus, return_last_state=True
    )
    y = y.flip(-1) if reverse else y
    return y.transpose(1, 2).contiguous(), _WithoutGradient.apply(state)  # type: ignore[return-value]


class _WithoutGradient(torch.autograd.Function):
    """Passes a tensor through and refuses to pass its gradient back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ARG004
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # noqa: ARG004
        raise KernelError("mamba-ssm has no gradient for the final state; take the backend 'cuda', or do not use it.")
