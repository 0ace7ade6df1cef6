"""States inside a sequence: kept on the way through it, and taken up again by pieces of it.

A causal stack carries one state from left to right, and `run_keeping` leaves copies behind. A stack that reads both
ways goes through its layers one by one: in each the sequence is swept once each way, piece by piece, so that only the
streams before and after a layer are held whole (`sweep`). What enters a stretch then is, in every layer and way, the
state at that end of it at which the way begins; `run_between` runs stretches from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn

from genossm.nn.directions import Bidirectional, BothStrands, exchange_strands
from genossm.nn.keeping import Wanted, mix_keeping
from genossm.nn.mamba1 import Mamba1
from genossm.nn.norm import normalized
from genossm.nn.stack import Block, Stack
from genossm.nn.state import LayerState, StackState

SWEEP_SEGMENT = 1 << 16
"""Tokens of a piece of a sweep."""


@dataclass(frozen=True, eq=False)
class Kept:
    """What `run_keeping` returns.   states: place to the state before the token there, with the rows asked for."""

    last_hidden: Float[Tensor, "batch length d_model"]
    state: StackState
    states: dict[int, StackState]


def run_keeping(
    stack: Stack,
    input_ids: Int[Tensor, "batch length"],
    state: StackState | None,
    keep: Mapping[int, Sequence[int]],
) -> Kept:
    """As `stack.run` of a causal stack, keeping states on the way; for inference.

    keep: places from 1 to length, and the rows whose state is wanted there.
    """
    before = stack.initial_state(len(input_ids)) if state is None else state
    pairs = [(place, row) for place, rows in keep.items() for row in rows]
    wanted = Wanted.of([place for place, _ in pairs], [row for _, row in pairs], input_ids.device)
    stream = stack.embed(input_ids)
    after: list[LayerState] = []
    kept: list[LayerState] = []
    for block, layer_state in zip(_blocks(stack), before.layers, strict=True):
        mixer = block.mixer
        assert isinstance(mixer, Mamba1)
        y, new, found = mix_keeping(mixer, normalized(block.norm, stream), layer_state, wanted, reverse=False)
        stream = stream + mixer.out_proj(y).to(stream.dtype)
        after.append(new)
        kept.append(found)
    read = before.positions + input_ids.shape[1]
    return Kept(stack.norm_f(stream), StackState(tuple(after), read), _by_place(kept, before.positions, keep))


def _by_place(kept: list[LayerState], read: Tensor, keep: Mapping[int, Sequence[int]]) -> dict[int, StackState]:
    sizes = [len(rows) for rows in keep.values()]
    layers = [zip(one.conv.split(sizes), one.scan.split(sizes)) for one in kept] if sizes else []
    states = zip(*([LayerState(conv, scan) for conv, scan in layer] for layer in layers))
    return {
        place: StackState(of_place, read[torch.as_tensor(rows)] + place)
        for (place, rows), of_place in zip(keep.items(), states)
    }


class _Way(NamedTuple):
    """One passage through a layer of a stack that reads both ways: a mixer, on one strand, in one direction."""

    mixer: Mamba1
    strand: int
    reverse: bool


def _ways(mixer: nn.Module) -> tuple[_Way, ...]:
    if isinstance(mixer, BothStrands):
        one = mixer.submodule
        plus = _Way(one.mamba_fwd, 0, False), _Way(one.mamba_rev, 0, True)
        return *plus, _Way(one.mamba_fwd, 1, True), _Way(one.mamba_rev, 1, False)
    assert isinstance(mixer, Bidirectional)
    return _Way(mixer.mamba_fwd, 0, False), _Way(mixer.mamba_rev, 0, True)


@dataclass(frozen=True, eq=False)
class Edges:
    """States of one sequence where stretches of it may begin or end.

    left, right: place to number. layers: for every layer and way, the states of all places of that way's side.
    """

    left: dict[int, int]
    right: dict[int, int]
    layers: tuple[tuple[LayerState, ...], ...]
    reverse: tuple[bool, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all states."""
        return sum(one.conv.nbytes + one.scan.nbytes for layer in self.layers for one in layer)

    def between(self, stretches: Sequence[tuple[int, int]]) -> tuple[tuple[LayerState, ...], ...]:
        """For every layer and way the states that enter the stretches `(first, last)`, one row a stretch.

        Raises: KeyError for a place whose state was not kept.
        """
        device = self.layers[0][0].scan.device
        chosen = {
            False: torch.tensor([self.left[first] for first, _ in stretches]).to(device),
            True: torch.tensor([self.right[last] for _, last in stretches]).to(device),
        }
        return tuple(
            tuple(
                LayerState(one.conv.index_select(0, chosen[reverse]), one.scan.index_select(0, chosen[reverse]))
                for one, reverse in zip(layer, self.reverse, strict=True)
            )
            for layer in self.layers
        )


@torch.inference_mode()
def sweep(
    stack: Stack,
    input_ids: Int[Tensor, "1 length"],
    left: Iterable[int],
    right: Iterable[int],
    *,
    segment_length: int = SWEEP_SEGMENT,
) -> Edges:
    """Read one sequence both ways and keep what `run_between` needs to run stretches of it.

    left, right: places where stretches begin and end, 0 to length. Memory: twice the residual stream, and the states.
    """
    return _edges(stack, input_ids, left, right, segment_length, to_the_top=False)[1]


@torch.inference_mode()
def sweep_and_sum(
    stack: Stack,
    input_ids: Int[Tensor, "1 length"],
    left: Iterable[int],
    right: Iterable[int],
    *,
    segment_length: int = SWEEP_SEGMENT,
) -> tuple[Edges, Float64[Tensor, " d_model"]]:
    """As `sweep`, and the sum of the last hidden states, after the final norm, over the whole sequence."""
    stream, edges = _edges(stack, input_ids, left, right, segment_length, to_the_top=True)
    pieces = (stack.outside(stack.norm_f(piece))[0] for piece in stream.split(segment_length, dim=1))
    return edges, torch.stack([piece.sum(dim=0, dtype=torch.float64) for piece in pieces]).sum(dim=0)


def _edges(
    stack: Stack, input_ids: Tensor, left: Iterable[int], right: Iterable[int], segment_length: int, *, to_the_top: bool
) -> tuple[Tensor, Edges]:
    """The stream that leaves the last layer, if it is wanted, and the states at the places."""
    length = input_ids.shape[1]
    places = {False: sorted({*left} - {0}), True: sorted({*right} - {length}, reverse=True)}
    stream, layers = _through_layers(stack, input_ids, places, segment_length, to_the_top=to_the_top)
    numbers = {reverse: {place: 1 + n for n, place in enumerate(found)} for reverse, found in places.items()}
    directions = tuple(way.reverse for way in _ways(stack.layers[0].mixer))  # type: ignore[arg-type]
    return stream, Edges({0: 0, **numbers[False]}, {length: 0, **numbers[True]}, layers, directions)


@torch.inference_mode()
def swept_hidden(
    stack: Stack,
    input_ids: Int[Tensor, "1 length"],
    places: Bool[Tensor, " length"],
    *,
    segment_length: int = SWEEP_SEGMENT,
) -> Float[Tensor, "places d_model"]:
    """The last hidden states, after the final norm, at some places of a sequence; memory is that of `sweep`."""
    stream, _ = _through_layers(stack, input_ids, {False: [], True: []}, segment_length, to_the_top=True)
    return stack.outside(stack.norm_f(stream[:, places]))[0]


def _through_layers(
    stack: Stack, input_ids: Tensor, places: dict[bool, list[int]], segment_length: int, *, to_the_top: bool
) -> tuple[Tensor, tuple[tuple[LayerState, ...], ...]]:
    """The stream that leaves the last layer, if it is wanted, and the states of every layer and way at `places`."""
    ways = tuple(_ways(block.mixer) for block in _blocks(stack))
    stream = stack.embed(input_ids)
    layers: list[tuple[LayerState, ...]] = []
    for number, (block, of_layer) in enumerate(zip(_blocks(stack), ways, strict=True)):
        if stack.config.strand_exchange:
            stream = exchange_strands(stream)
        after = stream.clone() if to_the_top or number + 1 < len(ways) else None
        layers.append(
            tuple(_sweep_way(block, way, stream, after, places[way.reverse], segment_length) for way in of_layer)
        )
        stream = stream if after is None else after
    return stream, tuple(layers)


def _sweep_way(
    block: Block, way: _Way, stream: Tensor, after: Tensor | None, places: list[int], segment_length: int
) -> LayerState:
    """Add what one way through a layer puts out to `after`; the states at no place, then at `places`."""
    length, rows = stream.shape[1], slice(way.strand, way.strand + 1)
    starts = range(0, length, segment_length)
    state, found = _beginning(way.mixer, stream), []
    found.append(state)
    for start in reversed(starts) if way.reverse else starts:
        end = min(start + segment_length, length)
        inside = [p - start for p in places if (start <= p < end if way.reverse else start < p <= end)]
        wanted = Wanted.of(inside, [0] * len(inside), stream.device)
        y, state, kept = mix_keeping(
            way.mixer, normalized(block.norm, stream[rows, start:end]), state, wanted, reverse=way.reverse
        )
        found.append(kept)
        if after is not None:
            after[rows, start:end] += way.mixer.out_proj(y).to(after.dtype)
    return LayerState(torch.cat([one.conv for one in found]), torch.cat([one.scan for one in found]))


def _beginning(mixer: Mamba1, stream: Tensor) -> LayerState:
    """The state of one row before anything was read."""
    weight = mixer.in_proj.weight
    channels = mixer.D.shape[0]
    conv = weight.new_zeros(1, mixer.conv1d.kernel_size[0] - 1, channels)
    return LayerState(conv, mixer.A_log.new_zeros(1, channels, mixer.d_state, device=stream.device))


@torch.inference_mode()
def run_between(
    stack: Stack, input_ids: Int[Tensor, "batch length"], states: tuple[tuple[LayerState, ...], ...]
) -> Float[Tensor, "batch length d_model"]:
    """The last hidden states, after the final norm, of stretches that are entered with `states` of `Edges.between`."""
    stream = stack.embed(input_ids)
    for block, ways in zip(_blocks(stack), states, strict=True):
        if stack.config.strand_exchange:
            stream = exchange_strands(stream)
        stream, _ = block(stream, (ways[:2], ways[2:]) if isinstance(block.mixer, BothStrands) else ways)
    return stack.outside(stack.norm_f(stream))


def _blocks(stack: Stack) -> Iterator[Block]:
    for block in stack.layers:
        assert isinstance(block, Block)
        yield block
