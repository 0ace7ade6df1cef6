"""Normalisation in float32 whatever the dtype of stream and weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genossm.nn.config import StackConfig
from genossm.nn.recompute import forgettable
from genossm_kernels import add_norm


def at_least_float32(tensor: Tensor) -> Tensor:
    """float32 for narrower dtypes; float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) * weight.   Source: Zhang & Sennrich 2019."""

    backend: str = "auto"

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*any size"]) -> Float[Tensor, "*any size"]:
        """Normalise the last dimension; the result has the dtype of the weight."""
        return self.apply_to(x, self.weight.dtype, self.weight)[0]

    def apply_to(self, x: Tensor, dtype: torch.dtype, weight: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` with another weight, in `dtype`; and x, to go on with: its gradient meets the norm's there."""
        return add_norm(None, x, weight, kind="rms", eps=self.eps, dtype=dtype, backend=self.backend)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(var + eps) * weight + bias.   Source: Ba et al. 2016."""

    backend: str = "auto"

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*any size"]) -> Float[Tensor, "*any size"]:
        """Normalise the last dimension; the result has the dtype of the weight."""
        return self.apply_to(x, self.weight.dtype, self.weight, self.bias)[0]

    def apply_to(self, x: Tensor, dtype: torch.dtype, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` with another weight and bias, in `dtype`; and x, to go on with: its gradient meets the norm's."""
        return add_norm(None, x, weight, bias, kind="layer", eps=self.eps, dtype=dtype, backend=self.backend)


def normalized(norm: nn.Module, stream: Tensor) -> Tensor:
    """`norm(stream)` in the dtype that a matrix product after it wants: that of autocast, inside it."""
    return branch(norm, stream)[0]


def branch(norm: nn.Module, stream: Tensor) -> tuple[Tensor, Tensor]:
    """`normalized`, and the stream to go on with beside it: gradients of both then meet in one pass over memory."""
    device = stream.device.type
    narrow = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    if not isinstance(norm, (RMSNorm, LayerNorm)) or _hooked(norm):
        hidden = norm(stream)
        return hidden if narrow is None else hidden.to(narrow), stream
    apply, dtype, weights = norm.apply_to, narrow or norm.weight.dtype, tuple(norm.parameters())
    hidden, stream = apply(stream, dtype, *weights)
    again = partial(_first, apply, dtype)
    return forgettable(hidden, "projections", again, stream, *weights), stream


def _first(apply: Callable[..., tuple[Tensor, Tensor]], dtype: torch.dtype, x: Tensor, *weights: Tensor) -> Tensor:
    return apply(x, dtype, *weights)[0]


def _hooked(norm: nn.Module) -> bool:
    """Whether somebody wants to see the call of the module itself."""
    return bool(norm._forward_hooks or norm._forward_pre_hooks or norm._backward_hooks or norm._backward_pre_hooks)


def build_norm(config: StackConfig) -> RMSNorm | LayerNorm:
    """The norm that `config` names."""
    norm = (RMSNorm if config.norm == "rms" else LayerNorm)(config.d_strand, config.norm_eps)
    if config.backend in ("reference", "torch"):
        norm.backend = "torch"  # the others name what scans and convolves; norms take what there is
    return norm
