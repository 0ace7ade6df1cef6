"""Normalisation in float32 whatever the dtype of stream and weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genossm.nn.config import StackConfig
from genossm.nn.recompute import forgettable


def at_least_float32(tensor: Tensor) -> Tensor:
    """float32 for narrower dtypes; float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) * weight.   Source: Zhang & Sennrich 2019."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*any size"]) -> Float[Tensor, "*any size"]:
        """Normalise the last dimension; the result has the dtype of the weight."""
        return self.apply_to(x, self.weight)

    def apply_to(self, x: Tensor, weight: Tensor) -> Tensor:
        """`forward` with another weight."""
        wide = at_least_float32(x)
        return F.rms_norm(wide, weight.shape, weight.to(wide.dtype), self.eps).to(weight.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(var + eps) * weight + bias.   Source: Ba et al. 2016."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*any size"]) -> Float[Tensor, "*any size"]:
        """Normalise the last dimension; the result has the dtype of the weight."""
        return self.apply_to(x, self.weight, self.bias)

    def apply_to(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """`forward` with another weight and bias."""
        wide = at_least_float32(x)
        return F.layer_norm(wide, weight.shape, weight.to(wide.dtype), bias.to(wide.dtype), self.eps).to(weight.dtype)


def normalized(norm: nn.Module, stream: Tensor) -> Tensor:
    """`norm(stream)` in the dtype that a matrix product after it wants: that of autocast, inside it."""

    def narrow(tensor: Tensor) -> Tensor:
        device = tensor.device.type
        return tensor.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else tensor

    hidden = narrow(norm(stream))
    if torch.compiler.is_compiling() or not isinstance(norm, (RMSNorm, LayerNorm)) or hidden is stream:
        return hidden
    apply = norm.apply_to
    return forgettable(
        hidden, "projections", lambda x, *weights: narrow(apply(x, *weights)), stream, *norm.parameters()
    )


def build_norm(config: StackConfig) -> RMSNorm | LayerNorm:
    """The norm that `config` names."""
    return (RMSNorm if config.norm == "rms" else LayerNorm)(config.d_strand, config.norm_eps)
