"""One mixer over a stretch, and its states at chosen places inside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.nn.mamba1 import Mamba1
from genossm.nn.norm import at_least_float32
from genossm.nn.state import LayerState

# From so many places in a stretch on they are found in a number of calls that does not grow with theirs. It means to
# run the scan twice, so that it pays only where a call costs more than its arithmetic.
_AT_ONCE = {"cuda": 16}
_AT_ONCE_BYTES = 1 << 30
_SHORTEST_CHUNK = 16

Sequences = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""u, delta, B, C and z, as `Mamba1.scan` takes them."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """Which states: of `rows[i]` at `places[i]`, before the token there (on the way back: behind it).

    index: rows and places on the device.
    """

    places: tuple[int, ...]
    rows: tuple[int, ...]
    index: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, places: Sequence[int], rows: Sequence[int], device: torch.device) -> Wanted:
        both = torch.tensor([rows, places], dtype=torch.int64).to(device)
        return cls(tuple(places), tuple(rows), (both[0], both[1]))


def mix_keeping(
    mixer: Mamba1, hidden: Tensor, state: LayerState, wanted: Wanted, *, reverse: bool
) -> tuple[Tensor, LayerState, LayerState]:
    """`project` and `mix` of a mixer, the state after the stretch, and the wanted ones in their order."""
    x, z = mixer.project(hidden)
    u, after = mixer.convolve(x, state.conv, reverse=reverse)
    delta, B, C = mixer.dynamics(u)
    sequences = u, delta, B, C, z
    if not wanted.places:
        y, memory = mixer.scan(*sequences, state.scan, reverse=reverse)
        return y, LayerState(after, memory), LayerState(after[:0], memory[:0])
    step = _common_step(wanted.places)
    chunks = (max(wanted.places) - min(wanted.places)) // step if step else 0
    unfit = step < _SHORTEST_CHUNK or not chunks or chunks * state.scan.nbytes > _AT_ONCE_BYTES
    if unfit or len(wanted.places) < _AT_ONCE.get(x.device.type, 1 << 62):
        y, memory, scans = _one_by_one(mixer, sequences, state.scan, wanted, reverse)
    else:
        y, memory = mixer.scan(*sequences, state.scan, reverse=reverse)
        scans = _at_once(mixer, sequences, state.scan, wanted, step, reverse)
    return y, LayerState(after, memory), LayerState(_tails(x, state.conv, wanted, reverse), scans)


def _tails(x: Tensor, before: Tensor, wanted: Wanted, reverse: bool) -> Tensor:
    """What the convolution has to see again, oldest first."""
    rows, places = wanted.index
    size = before.shape[1]
    before, offsets = before.to(x.dtype), torch.arange(size, device=x.device)
    if reverse:
        seen, offsets = torch.cat([x, before.flip(1)], dim=1), offsets.flip(0)
    else:
        seen = torch.cat([before, x], dim=1)
    return seen[rows[:, None], places[:, None] + offsets]


def _one_by_one(
    mixer: Mamba1, sequences: Sequences, memory: Tensor, wanted: Wanted, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The scan in pieces that end at the places."""
    pieces = list(pairwise(sorted({0, sequences[0].shape[1], *wanted.places})))
    outputs, found = [], {(0 if not reverse else sequences[0].shape[1]): memory}
    for start, end in reversed(pieces) if reverse else pieces:
        u, delta, B, C, z = (tensor[:, start:end] for tensor in sequences)
        y, memory = mixer.scan(u, delta, B, C, z, memory, reverse=reverse)
        outputs.append(y)
        found[start if reverse else end] = memory
    scans = torch.stack([found[place][row] for place, row in zip(wanted.places, wanted.rows)])
    y = outputs[0] if len(outputs) == 1 else torch.cat(outputs[::-1] if reverse else outputs, dim=1)
    return y, memory, scans


def _at_once(mixer: Mamba1, sequences: Sequences, memory: Tensor, wanted: Wanted, step: int, reverse: bool) -> Tensor:
    """States at all places `step` apart: what each chunk adds by itself, then a prefix sum of decays and additions."""
    first, last = min(wanted.places), max(wanted.places)
    length, rows = sequences[0].shape[1], len(memory)
    edge = slice(last, length) if reverse else slice(0, first)
    if edge.start < edge.stop:
        u, delta, B, C, z = (tensor[:, edge] for tensor in sequences)
        _, memory = mixer.scan(u, delta, B, C, z, memory, reverse=reverse)
    chunks = (last - first) // step
    u, delta, B, C, z = (tensor[:, first:last].reshape(rows * chunks, step, -1) for tensor in sequences)
    _, added = mixer.scan(u, delta, B, C, z, None, reverse=reverse)
    steps = F.softplus(at_least_float32(delta) + at_least_float32(mixer.dt_proj.bias)).sum(dim=1)
    decay = torch.exp(-torch.exp(at_least_float32(mixer.A_log)) * steps.unsqueeze(-1))
    added, decay = (tensor.view(rows, chunks, *memory.shape[1:]) for tensor in (added, decay))
    if reverse:
        added, decay = added.flip(1), decay.flip(1)
    states = torch.cat([memory.unsqueeze(1), _recurrence(decay, added, memory)], dim=1)
    row, place = wanted.index
    return states[row, (last - place if reverse else place - first) // step]


def _recurrence(decay: Tensor, added: Tensor, before: Tensor) -> Tensor:
    """h[:, i] = decay[:, i] * h[:, i - 1] + added[:, i] for all i, in steps that double."""
    added = torch.cat([added[:, :1] + decay[:, :1] * before.unsqueeze(1), added[:, 1:]], dim=1)
    reach = 1
    while reach < added.shape[1]:
        near, far = decay[:, reach:], decay[:, :-reach]
        added = torch.cat([added[:, :reach], added[:, reach:] + near * added[:, :-reach]], dim=1)
        decay = torch.cat([decay[:, :reach], near * far], dim=1)
        reach *= 2
    return added


def _common_step(places: Sequence[int]) -> int:
    """The largest distance of which all distances between places are multiples."""
    return math.gcd(*(place - places[0] for place in places))
