"""Both directions and both strands, made of the same mixers. No sequence is flipped: the operators run in reverse."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genossm.nn.config import StackConfig
from genossm.nn.mamba1 import Mamba1
from genossm.nn.state import LayerState

BothWays = tuple[LayerState, LayerState]
"""States of `mamba_fwd` and of `mamba_rev`."""


class Bidirectional(nn.Module):
    """Two mixers on the same input, one each way; their outputs are summed.

    Tied projections are applied once for both, since they are linear.
    Source: Schiff et al. 2024, "Caduceus", section 4.1 (BiMamba).
    """

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.tied = config.tie_directions
        self.mamba_fwd = Mamba1(config)
        shared = {"in_proj": self.mamba_fwd.in_proj, "out_proj": self.mamba_fwd.out_proj} if self.tied else {}
        self.mamba_rev = Mamba1(config, **shared)

    def forward(
        self,
        hidden: Float[Tensor, "batch length d_strand"],
        state: BothWays | None = None,
        *,
        reverse: bool = False,
    ) -> tuple[Float[Tensor, "batch length d_strand"], None]:
        """Mix along `length` both ways; `reverse` exchanges the ways.

        state: of either mixer, where its way into `hidden` begins; None is the beginning and end of a sequence. There
        is no state to carry on: what leaves one way would have to enter the other.
        """
        fwd, rev = (None, None) if state is None else state
        if not self.tied:
            y = self.mamba_fwd(hidden, fwd, reverse=reverse)[0]
            return y + self.mamba_rev(hidden, rev, reverse=not reverse)[0], None
        # Halved once, so that the backward pass puts the halves together once.
        x, z = self.mamba_fwd.project(hidden)
        y = self.mamba_fwd.mix(x, z, fwd, reverse=reverse)[0]
        y = y + self.mamba_rev.mix(x, z, rev, reverse=not reverse)[0]
        out = self.mamba_fwd.out_proj(y)
        # Each direction has its projection's bias, though the weights meet both at once.
        bias = self.mamba_fwd.out_proj.bias
        return (out if bias is None else out + bias), None


class BothStrands(nn.Module):
    """One mixer for both strands: rows of the first half of the batch run as they are, the others the other way.

    Source: Schiff et al. 2024, "Caduceus", section 4.2 (MambaDNA).
    """

    def __init__(self, mixer: Bidirectional) -> None:
        super().__init__()
        self.submodule = mixer

    def forward(
        self, hidden: Float[Tensor, "two_batch length d_strand"], state: tuple[BothWays, BothWays] | None = None
    ) -> tuple[Float[Tensor, "two_batch length d_strand"], None]:
        """Mix each strand along its own direction.   state: of the plus, then of the minus strand."""
        plus, minus = hidden.chunk(2)
        of_plus, of_minus = (None, None) if state is None else state
        return torch.cat([self.submodule(plus, of_plus)[0], self.submodule(minus, of_minus, reverse=True)[0]]), None


def build_mixer(config: StackConfig) -> Mamba1 | Bidirectional | BothStrands:
    """What mixes along the sequence in one block."""
    if config.direction == "causal":
        return Mamba1(config)
    mixer = Bidirectional(config)
    return BothStrands(mixer) if config.equivariant else mixer


def join_strands(rows: Float[Tensor, "two_batch length d_strand"]) -> Float[Tensor, "batch length d_model"]:
    """From strands as rows to strands as channels, the minus strand's channels in reverse order.

    So the reverse complement of an input flips the result along length and channels, and nothing else.
    """
    plus, minus = rows.chunk(2)
    return torch.cat([plus, minus.flip(-1)], dim=-1)


def exchange_strands(rows: Float[Tensor, "two_batch length d_strand"]) -> Float[Tensor, "two_batch length d_strand"]:
    """Swap the two halves of the channels of `join_strands`, unflipped, in the layout with strands as rows."""
    plus, minus = rows.chunk(2)
    return torch.cat([minus.flip(-1), plus.flip(-1)])
