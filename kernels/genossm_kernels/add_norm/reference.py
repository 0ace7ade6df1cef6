"""The definition of `add_norm`: its formula, differentiated by PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from genossm_kernels.add_norm.contract import NormArguments, NormCall


def unavailable(call: NormCall) -> str | None:  # noqa: ARG001  (part of the contract)
    return None


def run(arguments: NormArguments) -> tuple[Tensor, Tensor]:
    """The normalised stream, and the stream."""
    stream = arguments.residual
    wide = stream.to(arguments.weight.dtype)
    if arguments.x is not None:
        stream = (wide + arguments.x.to(wide.dtype)).to(stream.dtype)
        wide = stream.to(wide.dtype)
    if arguments.layer:
        wide = wide - wide.mean(dim=-1, keepdim=True)
    y = wide / torch.sqrt((wide * wide).mean(dim=-1, keepdim=True) + arguments.eps) * arguments.weight
    if arguments.bias is not None:
        y = y + arguments.bias
    return y.to(arguments.dtype), stream
