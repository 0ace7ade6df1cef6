"""What the public function promises a back end of `add_norm`, and what it expects back.

The two kinds of back end are those of `selective_scan.contract`. Arguments arrive checked: rows without gaps and one
stride between them, `weight` and `bias` contiguous in the arithmetic's dtype (float64 for a float64 stream, else
float32).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from genossm_kernels.checks import plain_size
from genossm_kernels.kinds import Kind, Kinds, traits


class NormCall(NamedTuple):
    """What of a call decides which back ends can run it."""

    device: torch.device
    dtypes: tuple[torch.dtype, ...]
    channels: int


@dataclass(eq=False, slots=True)  # not frozen: that costs a microsecond a call
class NormArguments:
    """Inputs of one addition and normalisation.

    layer: subtract the mean. dtype: of the normalised output.
    """

    x: Float[Tensor, "*rows channels"] | None
    residual: Float[Tensor, "*rows channels"]
    weight: Float[Tensor, " channels"]
    bias: Float[Tensor, " channels"] | None
    layer: bool
    eps: float
    dtype: torch.dtype
    kind: Kind | None = None  # what `kind_of` says of these, where that is known

    @property
    def facts(self) -> tuple[torch.device, tuple[torch.dtype, ...], int]:
        """The fields of `NormCall`; a plain tuple, which a compiler can follow."""
        added = () if self.x is None else (self.x.dtype,)
        dtypes = (self.residual.dtype, self.dtype, *added)
        return self.residual.device, dtypes, plain_size(self.residual.shape[-1])

    @property
    def call(self) -> NormCall:
        return NormCall(*self.facts)


_kinds = Kinds()


def kind_of(a: NormArguments) -> Kind:
    """The kind of such calls."""
    return _kinds.of((traits(a.x), traits(a.residual), traits(a.weight), traits(a.bias), a.layer, a.eps, a.dtype))


def row_stride(tensor: Tensor) -> int | None:
    """From one row to the next, in elements, where the last dimension has no gaps and this is the same everywhere."""
    if tensor.is_contiguous():
        return tensor.shape[-1]
    if tensor.stride(-1) != 1 and tensor.shape[-1] > 1:
        return None
    dimensions = [(size, step) for size, step in zip(tensor.shape[:-1], tensor.stride()[:-1]) if size > 1]
    if any(outer[1] != size * step for outer, (size, step) in pairwise(dimensions)):
        return None
    return dimensions[-1][1] if dimensions else tensor.shape[-1]


def in_rows(tensor: Tensor) -> Tensor:
    """The tensor itself where its rows have one stride, else a contiguous copy."""
    return tensor.contiguous() if row_stride(tensor) is None else tensor


@dataclass(eq=False, slots=True)
class NormSaved:
    """What the backward pass has: the sum in place of what was added. x_dtype: None where nothing was added."""

    stream: Float[Tensor, "*rows channels"]
    weight: Float[Tensor, " channels"]
    with_bias: bool
    layer: bool
    eps: float
    x_dtype: torch.dtype | None


@dataclass(eq=False, slots=True)
class NormGradients:
    """One gradient an input; None where the input is None.

    `x` is `residual` itself where both have one dtype.
    """

    x: Tensor | None
    residual: Tensor
    weight: Tensor
    bias: Tensor | None


class CompiledBackend(Protocol):
    """A back end with a hand-written backward pass."""

    def unavailable(self, call: NormCall) -> str | None:
        """None if `forward` and `backward` can run such calls here, else the reason."""
        ...

    def forward(
        self, arguments: NormArguments
    ) -> tuple[Float[Tensor, "*rows channels"], Float[Tensor, "*rows channels"]]:
        """The normalised stream, and the stream: `residual` itself where there is no x, else new."""
        ...

    def backward(
        self,
        saved: NormSaved,
        grad_y: Float[Tensor, "*rows channels"],
        grad_stream: Float[Tensor, "*rows channels"] | None,
    ) -> NormGradients: ...


class DifferentiableBackend(Protocol):
    """A back end made of differentiable calls."""

    def unavailable(self, call: NormCall) -> str | None: ...

    def run(self, arguments: NormArguments) -> tuple[Float[Tensor, "*rows channels"], Float[Tensor, "*rows channels"]]:
        """The normalised stream, and the stream."""
        ...
