"""Blocks on a residual stream, an embedding below them and a norm above."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genossm.nn.config import StackConfig
from genossm.nn.mamba1 import Mamba1
from genossm.nn.norm import at_least_float32, build_norm
from genossm.nn.state import LayerState, StackState
from genossm_kernels import ShapeError


@dataclass(frozen=True, eq=False)
class StackOutput:
    """last_hidden: after the final norm.   hidden_states: entering each block, then `last_hidden`."""

    last_hidden: Float[Tensor, "batch length d_model"]
    hidden_states: tuple[Float[Tensor, "batch length d_model"], ...] | None
    state: StackState


class Block(nn.Module):
    """stream + mixer(norm(stream))"""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.norm = build_norm(config)
        self.mixer = Mamba1(config)

    def forward(
        self, stream: Float[Tensor, "batch length d_model"], state: LayerState | None = None
    ) -> tuple[Float[Tensor, "batch length d_model"], LayerState]:
        """The stream after this block, in the stream's dtype, and the mixer's state."""
        mixed, after = self.mixer(self.norm(stream), state)
        return stream + mixed.to(stream.dtype), after


class Stack(nn.Module):
    """Token ids in, hidden states out."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm_f = build_norm(config)
        self._initialize()

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
        Raises: ShapeError if `input_ids` is not (batch, length) with both at least 1, or `state` belongs elsewhere.
        """
        self._check(input_ids, state)
        stream = self.embedding(input_ids if input_ids.dtype == torch.int64 else input_ids.to(torch.int32))
        if self.config.residual_in_fp32:
            stream = at_least_float32(stream)
        entering: list[Tensor] = []
        states: list[LayerState] = []
        for number, block in enumerate(self.layers):
            if return_hidden_states:
                entering.append(stream)
            stream, layer_state = block(stream, None if state is None else state.layers[number])
            states.append(layer_state)
        last = self.norm_f(stream)
        read = torch.zeros(len(input_ids), dtype=torch.int64) if state is None else state.positions
        after = StackState(tuple(states), read + input_ids.shape[1])
        return StackOutput(last, (*entering, last) if return_hidden_states else None, after)

    def initial_state(self, batch: int) -> StackState:
        """The state before the first token, all zero: the same as None, but it can be concatenated and stored."""
        config, weight = self.config, self.embedding.weight
        layer = LayerState(
            weight.new_zeros(batch, config.d_conv - 1, config.d_inner),
            at_least_float32(weight.new_zeros(batch, config.d_inner, config.d_state)),
        )
        return StackState((layer,) * config.n_layer, torch.zeros(batch, dtype=torch.int64))

    def _check(self, input_ids: Tensor, state: StackState | None) -> None:
        if input_ids.dim() != 2 or 0 in input_ids.shape:
            raise ShapeError(f"input_ids is {tuple(input_ids.shape)}; wanted (batch, length), both at least 1.")
        if input_ids.is_floating_point() or input_ids.dtype == torch.bool:
            raise ShapeError(f"input_ids is {input_ids.dtype}; wanted token ids as uint8, int32 or int64.")
        if state is None:
            return
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
        for module in self.layers.modules():
            if isinstance(module, Mamba1):
                for projection in (module.in_proj, module.out_proj):
                    if projection.bias is not None:
                        projection.bias.zero_()
                if self.config.rescale_prenorm_residual:
                    # One residual addition a layer: the stream's variance at the top does not grow with depth.
                    module.out_proj.weight.div_(math.sqrt(self.config.n_layer))
