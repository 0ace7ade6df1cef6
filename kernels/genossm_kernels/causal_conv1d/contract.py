"""What the public function promises a back end of `causal_conv1d`, and what it expects back.

The two kinds of back end are those of `selective_scan.contract`. Arguments arrive checked: `x` with unit stride
in the last dimension (it may be a slice of a larger projection), `weight bias` contiguous in the state dtype
(float64 for float64 inputs, else float32), `initial_state` contiguous in the dtype of `x`, `seq_idx` contiguous int32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from genossm_kernels.checks import plain_size, state_dtype
from genossm_kernels.kinds import Kind, Kinds, traits


class ConvCall(NamedTuple):
    """What of a call decides which back ends can run it."""

    device: torch.device
    dtype: torch.dtype
    width: int
    reverse: tuple[bool, ...]
    with_initial_state: bool
    with_seq_idx: bool


@dataclass(eq=False, slots=True)  # not frozen: that costs a microsecond a call
class ConvArguments:
    """Inputs of one convolution; `reverse` has one entry a block of `channels / len(reverse)` channels."""

    x: Float[Tensor, "batch length channels"]
    weight: Float[Tensor, "channels width"]
    bias: Float[Tensor, " channels"] | None
    silu: bool
    reverse: tuple[bool, ...]
    initial_state: Float[Tensor, "batch tail channels"] | None
    seq_idx: Int32[Tensor, "batch length"] | None
    kind: Kind | None = None  # what `kind_of` says of these, where that is known

    @property
    def state_dtype(self) -> torch.dtype:
        return state_dtype(self.x.dtype)

    @property
    def facts(self) -> tuple[torch.device, torch.dtype, int, tuple[bool, ...], bool, bool]:
        """The fields of `ConvCall`; a plain tuple, which a compiler can follow."""
        state, index = self.initial_state is not None, self.seq_idx is not None
        return (self.x.device, self.x.dtype, plain_size(self.weight.shape[1]), self.reverse, state, index)

    @property
    def call(self) -> ConvCall:
        return ConvCall(*self.facts)


_kinds = Kinds()


def kind_of(a: ConvArguments) -> Kind:
    """The kind of a call with these arguments."""
    x, weight = a.x, a.weight
    return _kinds.of(
        (
            a.silu,
            a.reverse,
            (x.shape, x.stride(), x.dtype, x.device),
            (weight.shape, weight.stride(), weight.dtype, weight.device),
            traits(a.bias),
            traits(a.initial_state),
            traits(a.seq_idx),
        )
    )


@dataclass(eq=False, slots=True)
class ConvGradients:
    """One gradient an input, in that input's dtype and shape; None where the input is None."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    initial_state: Tensor | None


class CompiledBackend(Protocol):
    """A back end with a hand-written backward pass.

    One that has the attribute `PLACES` takes memory for y and for the input's gradient, which may be slices of larger
    rows: `forward(..., y=)`, and `backward(..., grad_x=, add=)` replaces what is there or adds to it; see placing.py.
    """

    def unavailable(self, call: ConvCall) -> str | None:
        """None if `forward` and `backward` can run such calls here, else the reason."""
        ...

    def forward(
        self, arguments: ConvArguments
    ) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch tail channels"]]:
        """y and the final state, both new, contiguous and in the dtype of x. `backward` has the inputs alone."""
        ...

    def backward(
        self,
        arguments: ConvArguments,
        grad_y: Float[Tensor, "batch length channels"],
        grad_final_state: Float[Tensor, "batch tail channels"] | None,
    ) -> ConvGradients:
        """`grad_y` has unit stride in the last dimension; `grad_final_state` is contiguous; so are the results."""
        ...


class DifferentiableBackend(Protocol):
    """A back end made of differentiable calls."""

    def unavailable(self, call: ConvCall) -> str | None: ...

    def run(
        self, arguments: ConvArguments
    ) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch tail channels"]]:
        """y and the final state, both in the dtype of x."""
        ...
