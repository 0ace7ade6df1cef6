"""Passages of mixers over rows, and the tensors that they take: what `fused.py` runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.nn.norm import at_least_float32
from genossm.nn.state import LayerState
from genossm_kernels.causal_conv1d.contract import CompiledBackend as ConvBackend
from genossm_kernels.causal_conv1d.contract import ConvArguments
from genossm_kernels.checks import parameter
from genossm_kernels.operators import narrowed
from genossm_kernels.selective_scan.contract import CompiledBackend as ScanBackend
from genossm_kernels.selective_scan.contract import ScanArguments

if TYPE_CHECKING:
    from genossm.nn.mamba1 import Mamba1


class Way(NamedTuple):
    """One passage over rows of a batch: by a mixer, from a state, in one direction.

    rows: the first and the one after the last; None is all. Not a slice, which PyTorch 2.11's compiler
    does not take as a default.
    add: to what earlier ways put out for these rows.
    """

    mixer: Mamba1
    state: LayerState | None
    reverse: bool
    rows: tuple[int, int] | None = None
    add: bool = False


class Inputs(NamedTuple):
    """The tensors of a way, as the back ends and the products take them."""

    taps: Tensor
    tap_bias: Tensor | None
    tail: Tensor | None
    x_weight: Tensor
    step_weight: Tensor
    A: Tensor
    D: Tensor
    step_bias: Tensor
    memory: Tensor | None


@dataclass(frozen=True)
class Step:
    """One way: which kernels, which rows, which direction."""

    convolve: ConvBackend
    scan: ScanBackend
    reverse: bool
    rows: tuple[int, int] | None
    add: bool

    def own(self, batch: Tensor) -> Tensor:
        """The rows of this way."""
        return batch if self.rows is None else batch[slice(*self.rows)]

    def halves(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        x, z = self.own(projected).chunk(2, dim=-1)
        return x, z

    def convolution(self, x: Tensor, inputs: Inputs) -> ConvArguments:
        return ConvArguments(x, inputs.taps, inputs.tap_bias, True, (self.reverse,), inputs.tail, None)

    def scanned(self, u: Tensor, delta: Tensor, low: Tensor, z: Tensor, inputs: Inputs) -> ScanArguments:
        _, B, C = parts(low, inputs)
        return ScanArguments(
            u, delta, inputs.A, B, C, inputs.D, z, inputs.step_bias, True, (self.reverse,), inputs.memory, None
        )


def parts(low: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """The step before its projection, and the maps into and out of the state, of what `x_proj` gives."""
    rank, d_state = inputs.step_weight.shape[1], inputs.A.shape[1]
    step, B, C = low.split([rank, d_state, d_state], dim=-1)
    return step, B.unsqueeze(2), C.unsqueeze(2)


def inputs_of(mixer: Mamba1, dtype: torch.dtype) -> Inputs:
    """Casts are recorded by autograd, each once."""
    wide = torch.promote_types(dtype, torch.float32)
    bias = mixer.conv1d.bias
    x_weight, step_weight = on_whole_pieces(
        narrowed(mixer.x_proj.weight, dtype), narrowed(mixer.dt_proj.weight, dtype), mixer.d_state
    )
    return Inputs(
        taps=parameter(mixer.conv1d.weight.squeeze(1), wide),
        tap_bias=None if bias is None else parameter(bias, wide),
        tail=None,
        x_weight=x_weight,
        step_weight=step_weight,
        A=parameter(-torch.exp(at_least_float32(mixer.A_log)), wide),
        D=parameter(mixer.D, wide),
        step_bias=parameter(mixer.dt_proj.bias, wide),
        memory=None,
    )


def on_whole_pieces(x_weight: Tensor, step_weight: Tensor, d_state: int) -> tuple[Tensor, Tensor]:
    """With zeros that add nothing, where what `x_proj` gives, and the maps in it, would not begin on 16 bytes."""
    rank, piece = step_weight.shape[1], max(1, 16 // step_weight.element_size())
    if rank % piece == 0 or d_state % piece != 0:
        return x_weight, step_weight
    missing = -rank % piece
    zeros = x_weight.new_zeros((missing, x_weight.shape[1]))
    return torch.cat([x_weight[:rank], zeros, x_weight[rank:]]), F.pad(step_weight, (0, missing))


def with_state(inputs: Inputs, state: LayerState | None, dtype: torch.dtype) -> Inputs:
    if state is None:
        return inputs
    tail, memory = parameter(state.conv, dtype), parameter(state.scan, inputs.A.dtype)
    return inputs._replace(tail=tail, memory=memory)
