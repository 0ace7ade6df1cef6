"""What the public function promises a back end of `selective_scan`, and what it expects back.

A back end is a module of this folder. Either it writes its own backward pass (`CompiledBackend`, driven by
`autograd.ScanFunction` and by the custom operators) or PyTorch can differentiate it (`DifferentiableBackend`).

Arguments arrive checked: sizes agree, all tensors on one device, `u delta B C z` of one dtype and with unit
stride in the last dimension (their other strides are free: they may be slices of larger projections);
`A D delta_bias initial_state` contiguous in the state dtype (float64 for float64 inputs, else float32),
`seq_idx` contiguous int32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from genossm_kernels.checks import plain_size, state_dtype
from genossm_kernels.kinds import Kind, Kinds, traits


class ScanCall(NamedTuple):
    """What of a call decides which back ends can run it."""

    device: torch.device
    dtype: torch.dtype  # of the activations
    d_state: int
    reverse: tuple[bool, ...]
    with_initial_state: bool
    with_seq_idx: bool


@dataclass(eq=False, slots=True)  # not frozen: that costs a microsecond a call
class ScanArguments:
    """Inputs of one scan; `reverse` has one entry a block of `channels / len(reverse)` channels."""

    u: Float[Tensor, "batch length channels"]
    delta: Float[Tensor, "batch length channels"]
    A: Float[Tensor, "channels state"]
    B: Float[Tensor, "batch length groups state"]
    C: Float[Tensor, "batch length groups state"]
    D: Float[Tensor, " channels"] | None
    z: Float[Tensor, "batch length channels"] | None
    delta_bias: Float[Tensor, " channels"] | None
    delta_softplus: bool
    reverse: tuple[bool, ...]
    initial_state: Float[Tensor, "batch channels state"] | None
    seq_idx: Int32[Tensor, "batch length"] | None
    kind: Kind | None = None  # what `kind_of` says of these, where that is known

    @property
    def state_dtype(self) -> torch.dtype:
        return state_dtype(self.u.dtype)

    @property
    def facts(self) -> tuple[torch.device, torch.dtype, int, tuple[bool, ...], bool, bool]:
        """The fields of `ScanCall`; a plain tuple, which a compiler can follow."""
        state, index = self.initial_state is not None, self.seq_idx is not None
        return (self.u.device, self.u.dtype, plain_size(self.A.shape[1]), self.reverse, state, index)

    @property
    def call(self) -> ScanCall:
        return ScanCall(*self.facts)


_kinds = Kinds()


def kind_of(a: ScanArguments) -> Kind:
    """The kind of a call with these arguments."""
    u, delta, A, B, C, D, z, delta_bias = a.u, a.delta, a.A, a.B, a.C, a.D, a.z, a.delta_bias
    return _kinds.of(
        (
            a.delta_softplus,
            a.reverse,
            (u.shape, u.stride(), u.dtype, u.device),
            (delta.shape, delta.stride(), delta.dtype, delta.device),
            (A.shape, A.stride(), A.dtype, A.device),
            (B.shape, B.stride(), B.dtype, B.device),
            (C.shape, C.stride(), C.dtype, C.device),
            None if D is None else (D.shape, D.stride(), D.dtype, D.device),
            None if z is None else (z.shape, z.stride(), z.dtype, z.device),
            None
            if delta_bias is None
            else (delta_bias.shape, delta_bias.stride(), delta_bias.dtype, delta_bias.device),
            traits(a.initial_state),
            traits(a.seq_idx),
        )
    )


@dataclass(eq=False, slots=True)
class ScanGradients:
    """One gradient an input, in that input's dtype and shape; None where the input is None."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None


@dataclass(frozen=True, eq=False, slots=True)
class ScanTargets:
    """Memory of the caller's for some gradients: slices of larger rows, with unit stride in their last dimension.

    u, delta: contiguous. That of delta may be the memory of the argument delta, and that of u of the output's gradient:
    what was there is lost then.
    add: the gradient of z is added to what is there, and rounded once more.
    """

    u: Float[Tensor, "batch length channels"]
    delta: Float[Tensor, "batch length channels"]
    z: Float[Tensor, "batch length channels"]
    B: Float[Tensor, "batch length groups state"]
    C: Float[Tensor, "batch length groups state"]
    add: bool


class CompiledBackend(Protocol):
    """A back end with a hand-written backward pass.

    One that has the attribute `PLACES` takes memory to write to: `forward(..., y=, add=)`, whose outputs replace what
    is there or are added to it, and `backward(..., targets=)`; placing.py makes up for it where it is missing.
    """

    def unavailable(self, call: ScanCall) -> str | None:
        """None if `forward` and `backward` can run such calls here, else the reason."""
        ...

    def kept_shape(self, arguments: ScanArguments) -> tuple[int, ...]:
        """The shape of what `forward` keeps for `backward`, in the state dtype; arithmetic on sizes alone."""
        ...

    def forward(
        self, arguments: ScanArguments, *, need_backward: bool
    ) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch channels state"], Tensor | None]:
        """y (dtype of u), the final state (state dtype), and what `backward` wants kept, if it is to run.

        All of them new and contiguous.
        """
        ...

    def backward(
        self,
        arguments: ScanArguments,
        kept: Tensor,
        grad_y: Float[Tensor, "batch length channels"],
        grad_final_state: Float[Tensor, "batch channels state"] | None,
    ) -> ScanGradients:
        """`grad_y` has unit stride in the last dimension; `grad_final_state` is contiguous; so are the results."""
        ...


class DifferentiableBackend(Protocol):
    """A back end made of differentiable calls."""

    def unavailable(self, call: ScanCall) -> str | None: ...

    def run(
        self, arguments: ScanArguments
    ) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch channels state"]]:
        """y (dtype of u) and the final state (state dtype)."""
        ...
