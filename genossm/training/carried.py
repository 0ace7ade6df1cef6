"""States that are handed from segment to segment: truncated back-propagation through time, cut or carried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from genossm.data.batch import Batch
from genossm.nn import StackState
from genossm.nn.state import LayerState

# Reads a part of a batch from a state on: its loss, and the state after it.
Read = Callable[[Batch, StackState | None], tuple[Tensor, StackState]]


def restarted(state: StackState, begins: Bool[Tensor, " batch"]) -> StackState:
    """`state` with the rows that begin anew at zero, as before a first token.   begins: on the CPU."""
    if not bool(begins.any()):
        return state
    rows = begins.to(state.layers[0].conv.device, non_blocking=True)[:, None, None]
    layers = tuple(
        LayerState(layer.conv.masked_fill(rows, 0.0), layer.scan.masked_fill(rows, 0.0)) for layer in state.layers
    )
    return StackState(layers, state.positions.masked_fill(begins, 0))


class SegmentPasses:
    """A window read in segments, with exact gradients in the memory of one segment, or with gradients cut between.

    segment: bases of a pass, None for the whole window at once.
    carry: whether gradients flow back over all segments of the window. Then the states that enter the segments are
    found first, without gradients; the segments are read again from the last to the first, and what the loss of later
    segments says of a state goes into the pass that made it. So nothing but states is kept of a segment that is not
    being read, for one forward pass more.
    Source: Werbos 1990, "Backpropagation through time"; Chen et al. 2016 for reading again instead of keeping.
    """

    def __init__(self, segment: int | None, *, carry: bool) -> None:
        self.segment, self.carry = segment, carry

    def count(self, window: int) -> int:
        """Passes for a window of so many bases."""
        return 1 if self.segment is None else -(-window // self.segment)

    def objectives(
        self, read: Read, batch: Batch, state: StackState | None, done: Callable[[StackState], None]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pair a pass: what to run backward before the next pair is asked for, and the loss of the pass.

        state: what enters the window, None for its beginning.   done: told the state after the window, cut off.
        """
        pieces = self.pieces(batch)
        if self.carry and len(pieces) > 1:
            yield from self._carried(read, pieces, state, done)
            return
        for number, piece in enumerate(pieces):
            loss, after = read(piece, state)
            state = after.detach()
            if number == len(pieces) - 1:
                done(state)
            yield loss, loss.detach()

    def _carried(
        self, read: Read, pieces: Sequence[Batch], state: StackState | None, done: Callable[[StackState], None]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        entering = [state]
        with torch.no_grad():
            for piece in pieces[:-1]:
                entering.append(read(piece, entering[-1])[1])
        # Autocast keeps its copies of the weights, and those made above would give the weights no gradient.
        torch.clear_autocast_cache()
        wanted: list[Tensor] | None = None
        for number in reversed(range(len(pieces))):
            before = entering.pop()
            # What came before the window is cut off.
            leaves = None if number == 0 or before is None else _leaves(before)
            loss, after = read(pieces[number], before if leaves is None else leaves)
            if wanted is None:
                done(after.detach())
                objective = loss
            else:
                objective = loss + _dot(after, wanted)
            yield objective, loss.detach()
            if leaves is not None:
                wanted = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in _tensors(leaves)]

    def pieces(self, batch: Batch) -> list[Batch]:
        """The segments of a batch's windows, in order."""
        window = batch.targets.shape[1]
        size = self.segment or window
        return [batch.stretch(slice(first, min(first + size, window))) for first in range(0, window, size)]


def packed(state: StackState) -> dict[str, Any]:
    """Plain tensors for a checkpoint; `unpacked` gives the same state, bit for bit."""
    return {"positions": state.positions, "layers": [[layer.conv, layer.scan] for layer in state.layers]}


def unpacked(content: dict[str, Any], device: torch.device) -> StackState:
    """The state that `packed` was given, on `device`."""
    layers = tuple(LayerState(conv.to(device), scan.to(device)) for conv, scan in content["layers"])
    return StackState(layers, content["positions"].cpu())


def _tensors(state: StackState) -> list[Tensor]:
    return [tensor for layer in state.layers for tensor in (layer.conv, layer.scan)]


def _leaves(state: StackState) -> StackState:
    layers = tuple(
        LayerState(layer.conv.detach().requires_grad_(), layer.scan.detach().requires_grad_()) for layer in state.layers
    )
    return StackState(layers, state.positions)


def _dot(state: StackState, wanted: Sequence[Tensor]) -> Tensor:
    """Its gradient with respect to the state is `wanted`; its value means nothing."""
    return torch.stack([(tensor * gradient).sum().float() for tensor, gradient in zip(_tensors(state), wanted)]).sum()
