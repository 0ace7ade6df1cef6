"""Normalisation in float32 whatever the dtype of stream and weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genossm.nn.config import StackConfig


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
        wide = at_least_float32(x)
        return F.rms_norm(wide, self.weight.shape, self.weight.to(wide.dtype), self.eps).to(self.weight.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(var + eps) * weight + bias.   Source: Ba et al. 2016."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*any size"]) -> Float[Tensor, "*any size"]:
        """Normalise the last dimension; the result has the dtype of the weight."""
        wide = at_least_float32(x)
        weight, bias = self.weight.to(wide.dtype), self.bias.to(wide.dtype)
        return F.layer_norm(wide, self.weight.shape, weight, bias, self.eps).to(self.weight.dtype)


def build_norm(config: StackConfig) -> RMSNorm | LayerNorm:
    """The norm that `config` names."""
    return (RMSNorm if config.norm == "rms" else LayerNorm)(config.d_strand, config.norm_eps)
