"""Normalisation in float32 whatever the dtype of stream and weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genossm.nn.config import StackConfig
from genossm.nn.later import LookedUp, Unprojected, made
from genossm.nn.recompute import forgettable
from genossm.nn.watching import watched
from genossm_kernels import add_norm
from genossm_kernels.add_norm.contract import NormCall
from genossm_kernels.add_norm.leaving import Leaving, forward_leaving, takes
from genossm_kernels.checks import parameter
from genossm_kernels.dispatch import choose_backend
from genossm_kernels.operators import autocast_dtype, narrowed


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
    dtype = _narrow_dtype(stream) if narrow else None
    if not plain_norm(norm):
        stream = joined(stream, mixed)
        hidden = norm(stream)
        return hidden if dtype is None else hidden.to(dtype), stream
    assert isinstance(norm, (RMSNorm, LayerNorm))
    apply, dtype, weights = norm.apply_to, dtype or norm.weight.dtype, norm.weights
    hidden, stream = apply(stream, dtype, *weights, added=mixed)
    again = partial(_first, apply, dtype)
    return forgettable(hidden, "projections", again, stream, *weights), stream


def branch_later(
    norm: nn.Module,
    stream: Tensor | LookedUp,
    mixed: Tensor | Unprojected | None,
    *,
    narrow: bool = True,
    last: bool = False,
) -> tuple[Tensor | LookedUp, Tensor | LookedUp]:
    """`branch` of what may not have been made yet.   last: nobody goes on with the sum, which need not be there."""
    if plain_norm(norm) and isinstance(norm, (RMSNorm, LayerNorm)):
        dtype = (
            _narrow_dtype(stream.table if isinstance(stream, LookedUp) else stream) if narrow else None
        ) or norm.weight.dtype
        if isinstance(stream, LookedUp) and mixed is None:
            return stream.through(lambda table: norm.apply_to(table, dtype, *norm.weights)[0]), stream
        if isinstance(mixed, Unprojected) and isinstance(norm, RMSNorm):
            found = _left(norm, stream, mixed, dtype, last=last)
            if found is not None:
                return found
    return branch(norm, made(stream), None if mixed is None else made(mixed), narrow=narrow)


def _left(
    norm: RMSNorm, stream: Tensor | LookedUp, mixed: Unprojected, dtype: torch.dtype, *, last: bool
) -> tuple[Tensor, Tensor] | None:
    """`out_proj`, addition and norm in one pass over memory; None where no kernel does that."""
    y, rows = mixed.y, stream.table if isinstance(stream, LookedUp) else stream
    backend = choose_backend("add_norm", norm.backend, NormCall(y.device, (rows.dtype, dtype, y.dtype), rows.shape[-1]))
    arguments = Leaving(
        y=y,
        matrix=narrowed(mixed.out_proj.weight, autocast_dtype(y) or mixed.out_proj.weight.dtype),
        residual=rows,
        ids=stream.ids if isinstance(stream, LookedUp) else None,
        weight=parameter(norm.weight, torch.float32),
        eps=norm.eps,
        dtype=dtype,
    )
    if not takes(backend, arguments):
        return None
    hidden, after = forward_leaving(backend, arguments, keep=not last)
    return hidden, hidden if after is None else after


def plain_norm(norm: nn.Module) -> bool:
    """Whether its kernels may stand for it, and no one would miss its call."""
    return isinstance(norm, (RMSNorm, LayerNorm)) and not watched(norm)


def _narrow_dtype(stream: Tensor) -> torch.dtype | None:
    device = stream.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def joined(stream: Tensor, mixed: Tensor | None) -> Tensor:
    """The stream and what a mixer put out, in the dtype of the stream."""
    # Two dtypes in one addition: a narrow result is not first written out wide.
    return stream if mixed is None else (stream + mixed).to(stream.dtype)


def _first(apply: Callable[..., tuple[Tensor, Tensor]], dtype: torch.dtype, x: Tensor, *weights: Tensor) -> Tensor:
    return apply(x, dtype, *weights)[0]


def build_norm(config: StackConfig) -> RMSNorm | LayerNorm:
    """The norm that `config` names."""
    norm = (RMSNorm if config.norm == "rms" else LayerNorm)(config.d_strand, config.norm_eps)
    if config.backend in ("reference", "torch"):
        norm.backend = "torch"  # the others name what scans and convolves; norms take what there is
    return norm
