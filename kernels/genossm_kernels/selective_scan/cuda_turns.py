"""The forward pass in one launch whose warps take turns along the sequence: its shapes, and how long they take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from genossm_kernels._cuda.launch import Launcher

H100_MULTIPROCESSORS = 132  # of the one that the times below are of
# Clusters of so many blocks that an H100 holds at once: a cluster lies in one group of its multiprocessors, and the
# sizes of those are not multiples of it. As the driver says; of three blocks 32 were seen to run at once, 40 not.
_AT_ONCE = {1: 132, 2: 66, 3: 32, 4: 30}
_FIXED = 0.26  # of a step's time, whatever the number of states; the rest is of 16


@dataclass(frozen=True)
class Turns:
    """`channels` of a warp, `steps` of a lane at once, `warps` of a block, blocks of a `cluster`."""

    channels: int
    warps: int
    cluster: int
    steps: int = 16

    @property
    def round(self) -> int:
        """Steps until it is the first warp's turn again."""
        return self.cluster * self.warps * self.steps * 32 // self.channels


# Microseconds of a chain on an H100, before its first turn and after its last, and a round; 16 states, bfloat16.
# kernels/benchmarks/turns.py measures and fits them.
TIMES = {
    Turns(16, 12, 1): (9.0, 6.76),
    Turns(16, 12, 2): (10.9, 6.80),
    Turns(16, 12, 4): (12.7, 7.48),
    Turns(16, 8, 1): (5.7, 5.24),
    Turns(16, 4, 2): (5.8, 3.38),
    Turns(16, 12, 2, 8): (8.5, 4.11),
    Turns(8, 12, 2): (11.5, 7.89),
    Turns(8, 8, 1): (5.4, 6.38),
    Turns(8, 8, 2): (7.8, 6.21),
    Turns(8, 8, 3): (8.4, 6.20),
    Turns(8, 8, 4): (8.2, 6.44),
    Turns(8, 4, 2): (6.3, 4.08),
    Turns(8, 4, 3): (6.2, 4.14),
    Turns(8, 4, 4): (6.2, 4.17),
    Turns(8, 8, 2, 8): (7.5, 3.48),
    Turns(8, 8, 3, 8): (7.6, 3.58),
    Turns(8, 4, 4, 8): (6.2, 2.40),
}
# Times as many, by whether rows are of float32 and whether outputs are added to what is there.
LONGER = {(False, False): 1.0, (True, False): 1.06, (False, True): 1.02, (True, True): 1.10}
_SMALL, _BESIDE = 4, 0.7  # blocks of so few warps begin beside the wave before: what each further one takes longer


@dataclass(frozen=True)
class Chain:
    turns: Turns
    tiles: int  # chains, each of a cluster
    shared_bytes: int  # of a block
    adding_bytes: int  # more, where outputs are added to what is there

    @property
    def blocks(self) -> int:
        return self.tiles * self.turns.cluster

    @property
    def macros(self) -> tuple[tuple[str, int], ...]:
        turns = self.turns
        return (
            ("CLUSTER", turns.cluster),
            ("STEPS", turns.steps),
            ("TILE_CHANNELS", turns.channels),
            ("WARPS", turns.warps),
        )


def chain_of(turns: Turns, item_size: int, padded_state: int, runs: int, run_length: int) -> Chain:
    """runs: of channels that share a direction and a group, in all sequences.   Mirrors TOP and WARP_FLOATS of
    cuda_chain.cu."""
    segments = 32 // turns.channels
    rows = segments * (turns.steps + 1) * turns.channels
    stored = 4 * rows + 2 * segments * turns.steps * padded_state
    maps = 2 * segments * (turns.steps * padded_state + 4)
    top = padded_state * turns.channels * (1 + turns.warps) + 28
    return Chain(
        turns=turns,
        tiles=runs * -(-run_length // turns.channels),
        shared_bytes=4 * (top + turns.warps * (maps + -(-stored * item_size // 16) * 4)),
        adding_bytes=turns.warps * 2 * rows * item_size,
    )


def fastest_chain(
    launcher: Launcher, length: int, item_size: int, padded_state: int, adds: bool, runs: int, run_length: int
) -> tuple[Chain | None, float]:
    """And its microseconds; none fits where a multiprocessor's shared memory is too small.   adds: to what there is."""
    best, least = None, math.inf
    for turns in TIMES:
        chain = chain_of(turns, item_size, padded_state, runs, run_length)
        if turns.cluster > 1 and not launcher.clusters:
            continue
        if chain.shared_bytes + adds * chain.adding_bytes > launcher.shared_bytes_per_block:
            continue
        start, each = TIMES[turns]
        time = waves(launcher, chain) * (start + rounds(turns, length) * each * of_states(padded_state))
        time *= LONGER[item_size == 4, adds]
        if time < least:
            best, least = chain, time
    return best, least


def of_states(padded_state: int) -> float:
    """The time that a step takes, relative to 16 states."""
    return _FIXED + (1 - _FIXED) * padded_state / 16


def waves(launcher: Launcher, chain: Chain) -> float:
    """Times that one chain takes until all are done: an H100 holds as many at once as there are multiprocessors for."""
    at_once = max(1, _AT_ONCE[chain.turns.cluster] * launcher.multiprocessors // H100_MULTIPROCESSORS)
    more = -(-chain.tiles // at_once) - 1
    return 1 + more * (_BESIDE if chain.turns.warps <= _SMALL else 1.0)


def rounds(turns: Turns, length: int) -> float:
    full = length / turns.round
    return (math.ceil(full) + full) / 2  # half of what the last one lacks is won
