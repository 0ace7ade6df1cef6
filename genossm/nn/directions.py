"""Both directions and both strands, made of the same mixers. No sequence is flipped: the operators run in reverse."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genossm.nn.config import StackConfig
from genossm.nn.fused import fusable, mix_ways
from genossm.nn.later import LookedUp
from genossm.nn.mamba1 import Mamba1
from genossm.nn.state import LayerState
from genossm.nn.ways import Way

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
        if not self.tied:
            fwd, rev = (None, None) if state is None else state
            y = self.mamba_fwd(hidden, fwd, reverse=reverse)[0]
            return y + self.mamba_rev(hidden, rev, reverse=not reverse)[0], None
        return self.leave(self.gated(hidden, state, reverse=reverse)[0]), None

    @property
    def outer(self) -> Mamba1 | None:
        """Whose projections lead in and out for both; None where each has its own."""
        return self.mamba_fwd if self.tied else None

    def gated(
        self, hidden: Tensor | LookedUp, state: BothWays | None = None, *, reverse: bool = False
    ) -> tuple[Float[Tensor, "batch length d_inner"], None]:
        """`forward` without the projection out, where that is tied."""
        projected = self.mamba_fwd.read(hidden)
        ways = self.ways(state, reverse=reverse)
        if fusable(projected, ways):
            return mix_ways(projected, ways)[0], None
        fwd, rev = (None, None) if state is None else state
        # Halved once, so that the backward pass puts the halves together once.
        x, z = projected.chunk(2, dim=-1)
        y = self.mamba_fwd.mix(x, z, fwd, reverse=reverse)[0]
        return y + self.mamba_rev.mix(x, z, rev, reverse=not reverse)[0], None

    def ways(self, state: BothWays | None, *, reverse: bool, rows: tuple[int, int] | None = None) -> tuple[Way, Way]:
        """Both passages over some rows."""
        fwd, rev = (None, None) if state is None else state
        return Way(self.mamba_fwd, fwd, reverse, rows), Way(self.mamba_rev, rev, not reverse, rows, add=True)

    def leave(self, y: Float[Tensor, "batch length d_inner"]) -> Float[Tensor, "batch length d_strand"]:
        """The tied projection out, of the sum of both ways."""
        out = self.mamba_fwd.out_proj(y)
        # Each direction has its projection's bias, though the weights meet both at once.
        bias = self.mamba_fwd.out_proj.bias
        return out if bias is None else out + bias


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
        both, together = self.submodule, self.gated(hidden, state)
        if together is not None:
            return both.leave(together[0]), None
        of_plus, of_minus = (None, None) if state is None else state
        plus, minus = hidden.chunk(2)
        return torch.cat([both(plus, of_plus)[0], both(minus, of_minus, reverse=True)[0]]), None

    @property
    def outer(self) -> Mamba1 | None:
        """Whose projections lead in and out for all; None where each direction has its own."""
        return self.submodule.outer

    def gated(
        self, hidden: Tensor | LookedUp, state: tuple[BothWays, BothWays] | None = None
    ) -> tuple[Float[Tensor, "two_batch length d_inner"], None] | None:
        """`forward` without the projection out; None where the strands go one by one."""
        both, half = self.submodule, hidden.shape[0] // 2
        # What stands in for the projection in may not see both strands as one.
        if not both.tied or type(both.mamba_fwd.in_proj) is not nn.Linear:
            return None
        of_plus, of_minus = (None, None) if state is None else state
        ways = both.ways(of_plus, reverse=False, rows=(0, half))
        ways += both.ways(of_minus, reverse=True, rows=(half, 2 * half))
        projected = both.mamba_fwd.read(hidden) if isinstance(hidden, LookedUp) else None
        if not fusable(hidden if projected is None else projected, ways):  # pyright: ignore[reportArgumentType]
            return None
        return mix_ways(both.mamba_fwd.read(hidden) if projected is None else projected, ways)[0], None


MIXERS = (Mamba1, Bidirectional, BothStrands)


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
