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
        return self.apply_to(x, self.weight.dtype, *self.weights)[0]

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """As `apply_to` takes them."""
        return (self.weight,)

    def apply_to(
        self, x: Tensor, dtype: torch.dtype, weight: Tensor, *, added: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`forward` of x + added with another weight, in `dtype`; and the sum, to go on with."""
        return add_norm(added, x, weight, kind="rms", eps=self.eps, dtype=dtype, backend=self.backend)


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
        return self.apply_to(x, self.weight.dtype, *self.weights)[0]

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """As `apply_to` takes them."""
        return self.weight, self.bias

    def apply_to(
        self, x: Tensor, dtype: torch.dtype, weight: Tensor, bias: Tensor, *, added: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`forward` of x + added with another weight and bias, in `dtype`; and the sum, to go on with."""
        return add_norm(added, x, weight, bias, kind="layer", eps=self.eps, dtype=dtype, backend=self.backend)


def normalized(norm: nn.Module, stream: Tensor) -> Tensor:
    """`norm(stream)` in the dtype that a matrix product after it wants: that of autocast, inside it."""
    return branch(norm, stream)[0]


def branch(
    norm: nn.Module, stream: Tensor, mixed: Tensor | None = None, *, narrow: bool = True
) -> tuple[Tensor, Tensor]:
    """`normalized` of stream + mixed, and that sum to go on with: on a GPU one pass over memory, and one back.

    narrow: to the dtype of autocast; otherwise the result has that of `norm(stream)`.
    """
    device = stream.device.type
    dtype = torch.get_autocast_dtype(device) if narrow and torch.is_autocast_enabled(device) else None
    if not isinstance(norm, (RMSNorm, LayerNorm)) or watched(norm):
        stream = joined(stream, mixed)
        hidden = norm(stream)
        return hidden if dtype is None else hidden.to(dtype), stream
    apply, dtype, weights = norm.apply_to, dtype or norm.weight.dtype, norm.weights
    hidden, stream = apply(stream, dtype, *weights, added=mixed)
    again = partial(_first, apply, dtype)
    return forgettable(hidden, "projections", again, stream, *weights), stream


def joined(stream: Tensor, mixed: Tensor | None) -> Tensor:
    """The stream and what a mixer put out, in the dtype of the stream."""
    # Two dtypes in one addition: a narrow result is not first written out wide.
    return stream if mixed is None else (stream + mixed).to(stream.dtype)


def watched(module: nn.Module) -> bool:
    """Whether somebody wants to see the call of the module itself."""
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return any(hooks)


def _first(apply: Callable[..., tuple[Tensor, Tensor]], dtype: torch.dtype, x: Tensor, *weights: Tensor) -> Tensor:
    return apply(x, dtype, *weights)[0]


def build_norm(config: StackConfig) -> RMSNorm | LayerNorm:
    """The norm that `config` names."""
    norm = (RMSNorm if config.norm == "rms" else LayerNorm)(config.d_strand, config.norm_eps)
    if config.backend in ("reference", "torch"):
        norm.backend = "torch"  # the others name what scans and convolves; norms take what there is
    return norm
