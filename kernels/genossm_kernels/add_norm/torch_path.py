"""`add_norm` of PyTorch's own operators, for any device and for compilers, which fuse them by themselves."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from genossm_kernels.add_norm.contract import NormArguments, NormCall


def unavailable(call: NormCall) -> str | None:  # noqa: ARG001  (part of the contract)
    return None


def run(arguments: NormArguments) -> tuple[Tensor, Tensor]:
    """The normalised stream, and the stream."""
    weight, bias, stream = arguments.weight, arguments.bias, arguments.residual
    if arguments.x is not None:
        stream = (stream + arguments.x).to(stream.dtype)
    wide = stream.to(weight.dtype)
    if arguments.layer:
        y = F.layer_norm(wide, weight.shape, weight, bias, arguments.eps)
    else:
        y = F.rms_norm(wide, weight.shape, weight, arguments.eps)
        y = y if bias is None else y + bias
    return y.to(arguments.dtype), stream
