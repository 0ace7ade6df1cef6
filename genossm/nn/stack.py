"""Blocks on a residual stream, an embedding below them and a norm above."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genossm.core.errors import ConfigError, MethodError
from genossm.nn.config import StackConfig
from genossm.nn.directions import MIXERS, build_mixer, exchange_strands, join_strands
from genossm.nn.embedding import TokenEmbedding
from genossm.nn.later import LookedUp, Unprojected, can_wait, looked_up, made, plain_linear
from genossm.nn.norm import at_least_float32, branch, branch_later, build_norm, joined
from genossm.nn.recompute import Recompute, recomputing
from genossm.nn.state import LayerState, StackState
from genossm.nn.watching import watched
from genossm_kernels import ShapeError

_LONG = 1 << 16


@dataclass(frozen=True, eq=False)
class StackOutput:
    """last_hidden: after the final norm.   hidden_states: entering each block, then `last_hidden`.

    state: after the last token; None from a stack that reads both ways.
    """

    last_hidden: Float[Tensor, "batch length d_model"]
    hidden_states: tuple[Float[Tensor, "batch length d_model"], ...] | None
    state: StackState | None


class Block(nn.Module):
    """stream + mixer(norm(stream))

    recompute: what the backward pass makes again and autograd does not keep; may be changed at any time.
    "cheap" (step sizes, results of the convolutions) costs a few percent of a long step and gives back two fifths of
    the activation memory; "projections" (those of in_proj and the norm besides) costs more and gives back two thirds;
    "nothing" is for short sequences, whose memory is no matter and whose steps would take a quarter longer, and for a
    checkpoint around the block. "auto" is "cheap" from 65,536 tokens on, and "nothing" below.
    """

    recompute: Recompute | Literal["auto"] = "auto"

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.norm = build_norm(config)
        self.mixer = build_mixer(config)

    def forward(
        self, stream: Float[Tensor, "rows length d_strand"], state: LayerState | None = None
    ) -> tuple[Float[Tensor, "rows length d_strand"], LayerState | None]:
        """The stream after this block, in the stream's dtype, and the mixer's state, if it has one."""
        with self.remembering(stream):
            hidden, stream = branch(self.norm, stream)
            mixed, after = self.mixer(hidden, state)
            return joined(stream, mixed), after

    def mix(
        self, hidden: Tensor | LookedUp, state: LayerState | None
    ) -> tuple[Tensor | Unprojected, LayerState | None]:
        """The mixer; its last projection waits where nobody looks: a kernel may take it along with what follows."""
        mixer: Any = self.mixer
        own = type(mixer) in MIXERS and "forward" not in vars(mixer) and not watched(mixer)
        outer = mixer.outer if own else None
        if outer is not None and plain_linear(outer.in_proj) and plain_linear(outer.out_proj):
            waits = can_wait(outer.out_proj.weight, hidden.shape[0] * hidden.shape[1])
            found = mixer.gated(hidden, state) if waits else None
            if found is not None:
                return Unprojected(found[0], outer.out_proj), found[1]
        return mixer(made(hidden), state)

    def remembering(self, stream: Tensor | LookedUp) -> AbstractContextManager[None]:
        """Inside, autograd keeps what `recompute` says; a compiler decides for itself."""
        if torch.compiler.is_compiling():
            return nullcontext()
        level = self.recompute
        if level == "auto":
            level = "cheap" if stream.shape[0] * stream.shape[1] >= _LONG else "nothing"
        return recomputing(level)

    @property
    def divisible(self) -> bool:
        """Whether nobody minds that its parts are called and not itself: no hook, no other forward, no compiler."""
        own = type(self).forward is Block.forward and "forward" not in vars(self)
        return own and not watched(self) and self._compiled_call_impl is None and not torch.compiler.is_compiling()


class Stack(nn.Module):
    """Token ids in, hidden states out.

    complement: id of the complement of every id; an equivariant stack needs it, others do not look at it.
    Inside, an equivariant stack has the strands as rows: those of the plus strand, then those of the minus strand,
    both in the order of the input. Outside they are channels, see `join_strands`.
    Raises: ConfigError if an equivariant stack gets no complement, or one of another size.
    """

    complement: Int[Tensor, " vocab"] | None

    def __init__(self, config: StackConfig, complement: Int[Tensor, " vocab"] | None = None) -> None:
        super().__init__()
        if config.equivariant and (complement is None or complement.shape != (config.vocab_size,)):
            got = "none" if complement is None else f"{len(complement)} ids"
            raise ConfigError(
                f"An equivariant stack needs the complement of each of {config.vocab_size} ids; got {got}."
            )
        self.config = config
        self.embedding = TokenEmbedding(config.vocab_size, config.d_strand)
        self.register_buffer("complement", complement if config.equivariant else None, persistent=False)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm_f = build_norm(config)
        self._initialize()

    def recompute(self, level: Recompute | Literal["auto"]) -> None:
        """Set what every block makes again in the backward pass, see `Block`; names and numbers stay the same."""
        for block in self.layers:
            block.recompute = level  # pyright: ignore[reportArgumentType]

    def forward(
        self, input_ids: Int[Tensor, "batch length"], state: StackState | None = None
    ) -> Float[Tensor, "batch length d_model"]:
        """The last hidden states, after the final norm."""
        return self.run(input_ids, state).last_hidden

    def run(
        self,
        input_ids: Int[Tensor, "batch length"],
        state: StackState | None = None,
        *,
        return_hidden_states: bool = False,
    ) -> StackOutput:
        """As `forward`, with the state after the last token and, on request, what enters each block.

        input_ids: uint8, int32 or int64.   state: what was read before; None is the beginning.
        Raises: ShapeError if `input_ids` is not (batch, length) with both at least 1, or `state` belongs elsewhere;
        MethodError for a state given to a stack that reads both ways.
        """
        self._check(input_ids, state)
        before = [None] * len(self.layers) if state is None else state.layers
        entering: list[Tensor] | None = [] if return_hidden_states else None
        stream, mixed, states = self._through_blocks(self._entering(input_ids), before, entering)
        last = self.outside(made(branch_later(self.norm_f, stream, mixed, narrow=False, last=True)[0]))
        after = self._state_after(input_ids, state, states)
        return StackOutput(last, None if entering is None else (*entering, last), after)

    def _through_blocks(
        self, stream: Tensor | LookedUp, before: Sequence[LayerState | None], entering: list[Tensor] | None
    ) -> tuple[Tensor | LookedUp, Tensor | Unprojected | None, list[LayerState | None]]:
        """The stream, what is still to be added to it, and the states after the last token.

        Where nobody looks at the stream between two blocks, the norm of the second adds what the first put out: that
        is one pass over memory.   before: the states before the first token.   entering: to be filled, if it is there.
        """
        mixed, states = None, []
        for block, state in zip(self.layers, before, strict=True):
            whole = not (isinstance(block, Block) and block.divisible)
            if whole or entering is not None or self.config.strand_exchange:
                stream, mixed = joined(made(stream), None if mixed is None else made(mixed)), None
            if entering is not None:
                entering.append(self.outside(made(stream)))
            if self.config.strand_exchange:
                stream = exchange_strands(made(stream))
            if isinstance(block, Block) and not whole:
                with block.remembering(stream):
                    hidden, stream = branch_later(block.norm, stream, mixed)
                    mixed = None  # its memory is the mixer's now
                    mixed, after = block.mix(hidden, state)
            else:
                stream, after = block(made(stream), state)
            states.append(after)
        return stream, mixed, states

    def initial_state(self, batch: int) -> StackState:
        """The state before the first token, all zero: the same as None, but it can be concatenated and stored.

        Raises: MethodError for a stack that reads both ways.
        """
        self._require_state()
        config, weight = self.config, self.embedding.weight
        layer = LayerState(
            weight.new_zeros(batch, config.d_conv - 1, config.d_inner),
            at_least_float32(weight.new_zeros(batch, config.d_inner, config.d_state)),
        )
        return StackState((layer,) * config.n_layer, torch.zeros(batch, dtype=torch.int64))

    def embed(self, input_ids: Int[Tensor, "batch length"]) -> Float[Tensor, "rows length d_strand"]:
        """The residual stream before the first block, strands as rows."""
        stream = self.embedding(self._ids(input_ids))
        return at_least_float32(stream) if self.config.residual_in_fp32 else stream

    def _ids(self, input_ids: Tensor) -> Tensor:
        """Of the rows of the stream, as a look-up takes them."""
        ids = input_ids if input_ids.dtype == torch.int64 else input_ids.to(torch.int32)
        return ids if self.complement is None else torch.cat([ids, self.complement[ids].to(ids.dtype)])

    def _entering(self, input_ids: Tensor) -> Tensor | LookedUp:
        """`embed`, not made where every step after it can do with the table and the ids."""
        table = self.embedding.weight
        plain = type(self.embedding) is TokenEmbedding and not watched(self.embedding)
        plain = plain and type(self).embed is Stack.embed and "embed" not in vars(self)
        if plain and type(table) in (Tensor, nn.Parameter):
            found = looked_up(at_least_float32(table) if self.config.residual_in_fp32 else table, self._ids(input_ids))
            if found is not None:
                return found
        return self.embed(input_ids)

    def outside(self, stream: Float[Tensor, "rows length d_strand"]) -> Float[Tensor, "batch length d_model"]:
        """A stream with strands as channels."""
        return join_strands(stream) if self.config.equivariant else stream

    def _state_after(
        self, input_ids: Tensor, before: StackState | None, layers: list[LayerState | None]
    ) -> StackState | None:
        known = tuple(layer for layer in layers if layer is not None)
        if len(known) < len(layers):
            return None
        read = torch.zeros(len(input_ids), dtype=torch.int64) if before is None else before.positions
        return StackState(known, read + input_ids.shape[1])

    def _require_state(self) -> None:
        if self.config.direction != "causal":
            raise MethodError(
                "A bidirectional model has no state that could be handed from left to right; give it whole windows."
            )

    def _check(self, input_ids: Tensor, state: StackState | None) -> None:
        if input_ids.dim() != 2 or 0 in input_ids.shape:
            raise ShapeError(f"input_ids is {tuple(input_ids.shape)}; wanted (batch, length), both at least 1.")
        if input_ids.is_floating_point() or input_ids.dtype == torch.bool:
            raise ShapeError(f"input_ids is {input_ids.dtype}; wanted token ids as uint8, int32 or int64.")
        if state is None:
            return
        self._require_state()
        if len(state.layers) != len(self.layers):
            raise ShapeError(f"The state has {len(state.layers)} layers, the model {len(self.layers)}.")
        if state.batch_size != len(input_ids):
            raise ShapeError(
                f"The state has {state.batch_size} rows and input_ids {len(input_ids)}. Pick rows with state.select."
            )

    @torch.no_grad()
    def _initialize(self) -> None:
        """The scheme of the authors' code; what it leaves alone keeps PyTorch's own initialisation."""
        nn.init.normal_(self.embedding.weight, std=self.config.initializer_range)
        # named_parameters visits weights that two directions share once.
        for name, parameter in self.layers.named_parameters():
            if name.endswith(("in_proj.bias", "out_proj.bias")):
                parameter.zero_()
            elif name.endswith("out_proj.weight") and self.config.rescale_prenorm_residual:
                # One residual addition a layer: the stream's variance at the top does not grow with depth.
                parameter.div_(math.sqrt(self.config.n_layer))
