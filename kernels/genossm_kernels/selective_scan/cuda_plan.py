"""How one shape of call falls to warps, segments and launches; mirrors the constants of the .cuh and .cu files."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from genossm_kernels._cuda.launch import Launcher, Module
from genossm_kernels.selective_scan.cuda_turns import Chain, fastest_chain

_FORWARD = Path(__file__).parent / "cuda_forward.cu"
_ADJOINTS = Path(__file__).parent / "cuda_adjoints.cu"
_CHAIN = Path(__file__).parent / "cuda_chain.cu"
_BACKWARD = Path(__file__).parent / "cuda_backward.cu"
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

CHECKPOINT = 128  # steps between the states kept for the backward pass, where there is work enough for a device
LONGEST_SEGMENT = 2048
# Elements of u up to which the forward pass has too little work to share out in segments of 128, and the backward pass.
_SHORT, _SHORT_BACKWARD = 2**22, 2**21
_SHORT_UNIT = 64
_TILE = 16  # of the forward kernels and the adjoint pass
_GRADIENT_TILE, _GRADIENT_HALF, _SWEEP_TILE = 8, 4, 16
_GRADIENT_WARPS, _GRADIENT_BLOCKS = 4, 3  # of `gradients`: small blocks, since their warps wait for one another
_MOST_WALKS = 8
_BLOCK_WARPS, _MOST_BLOCKS = 4, 3  # of the forward kernels: 12 warps a multiprocessor, 168 registers a thread
_H100 = 132  # multiprocessors
_SEGMENT_START = 6  # steps that the beginning of a segment takes as long as
_ADJOINT_STEP = 0.73  # of a step of `gradients`: all that a multiprocessor holds of both


@dataclass(frozen=True)
class Shape:
    """Everything that decides a plan. `aligned`: rows of channels, `aligned_maps`: of B and C, in 16-byte pieces."""

    dtype: torch.dtype
    batch: int
    length: int
    channels: int
    d_state: int
    groups: int
    blocks: int
    softplus: bool
    gate: bool
    packed: bool
    aligned: bool
    aligned_maps: bool
    backward: bool
    adds: bool = False  # outputs to what there is
    both: bool = False  # two directions in one launch, which adds them up


@dataclass(frozen=True)
class Plan:
    """Launch geometry of one pass; `*_bytes` is the shared memory of a block."""

    padded_state: int
    runs: int
    tiles_per_run: int
    parts_per_run: int  # blocks of `gradients` beside one another in a run
    segment_length: int
    segments: int
    checkpoint: int
    warps: int
    blocks: int
    state_bytes: int
    output_bytes: int
    adjoint_bytes: int
    gradient_warps: int
    gradient_blocks: int
    gradient_bytes: int
    macros: tuple[tuple[str, int], ...]
    chain: Chain | None  # instead of segments, in the forward pass

    @property
    def tiles(self) -> int:
        return self.runs * self.tiles_per_run

    @property
    def parts(self) -> int:
        return self.runs * self.parts_per_run

    @property
    def scratch_floats(self) -> int:
        """Of a warp of `gradients`: the state before each half tile of a checkpoint."""
        return self.checkpoint // _GRADIENT_HALF * 256

    def forward_module(self, launcher: Launcher, add: bool) -> Module:
        """add: to what the memory of the outputs holds."""
        more = (("ADD_Y", 1),) if add else ()
        if self.chain is not None:
            return launcher.module(_CHAIN, (*self.macros, *self.chain.macros, *more))
        return launcher.module(_FORWARD, (*self._segment_macros(), *more))

    def both_module(self, launcher: Launcher) -> Module:
        assert self.chain is not None
        return launcher.module(_CHAIN, (("BOTH", 1), *self.macros, *self.chain.macros))

    def adjoint_module(self, launcher: Launcher) -> Module:
        return launcher.module(_ADJOINTS, self._segment_macros())

    def backward_module(self, launcher: Launcher) -> Module:
        own = (("BACKWARD_BLOCKS", self.gradient_blocks), ("BACKWARD_WARPS", self.gradient_warps))
        return launcher.module(_BACKWARD, (*self.macros, *own))

    def _segment_macros(self) -> tuple[tuple[str, int], ...]:
        return (*self.macros, ("SEGMENT_BLOCKS", self.blocks), ("SEGMENT_WARPS", self.warps))


@functools.lru_cache(maxsize=256)
def plan_for(launcher: Launcher, shape: Shape) -> Plan:
    padded_state = 4
    while padded_state < shape.d_state:
        padded_state *= 2
    lane_states = min(padded_state, 16)
    floats = _Floats(padded_state, 64 * lane_states // padded_state, shape.dtype.itemsize, shape.aligned_maps)
    runs = math.lcm(shape.blocks, shape.groups)
    run_length = shape.channels // runs
    chain = None if shape.backward else _chain(launcher, shape, padded_state, runs)
    tiles_per_run = -(-run_length // floats.warp_channels)

    state, output, adjoint = floats.segment(2, 1), floats.segment(3, 2), floats.segment(3, 1)
    blocks = _blocks(launcher, _BLOCK_WARPS * 4 * output, _MOST_BLOCKS)
    resident = launcher.multiprocessors * blocks * _BLOCK_WARPS

    gradient_floats = _GradientFloats(padded_state, 256 // padded_state, shape.dtype.itemsize, shape.aligned_maps)
    gradient = gradient_floats.total()
    gradient_tiles = -(-run_length // gradient_floats.warp_channels)
    gradient_warps = min(_GRADIENT_WARPS, gradient_tiles)
    while gradient_warps > 1 and gradient_warps * 4 * gradient > launcher.shared_bytes_per_block:
        gradient_warps -= 1
    gradient_blocks = _blocks(launcher, gradient_warps * 4 * gradient, _GRADIENT_BLOCKS)
    gradient_resident, columns = launcher.multiprocessors * gradient_blocks, -(-gradient_tiles // gradient_warps)
    checkpoint = checkpoint_steps(shape.batch, shape.length, shape.channels)
    if shape.backward and checkpoint < CHECKPOINT:
        segment_length = _short_segment(gradient_resident, shape.length, shape.batch * runs * columns)
    elif not shape.backward and shape.batch * shape.length * shape.channels <= _SHORT:
        segment_length = _short_segment(resident, shape.length, shape.batch * runs * tiles_per_run)
    else:

        def time(steps: int) -> float:
            segments = shape.batch * -(-shape.length // steps) * runs
            waves = _waves(launcher, -(-segments * tiles_per_run // _BLOCK_WARPS), blocks)
            if shape.backward:
                waves = _ADJOINT_STEP * waves + _parts_per_run(gradient_resident, segments, columns)[1]
            return (steps + _SEGMENT_START) * waves

        segment_length = _segment_length(shape.length, time)
    segments = -(-shape.length // segment_length)
    parts_per_run, _ = _parts_per_run(gradient_resident, shape.batch * segments * runs, columns)
    return Plan(
        padded_state=padded_state,
        runs=runs,
        tiles_per_run=tiles_per_run,
        parts_per_run=parts_per_run,
        segment_length=segment_length,
        segments=segments,
        checkpoint=checkpoint,
        warps=_BLOCK_WARPS,
        blocks=blocks,
        state_bytes=4 * _BLOCK_WARPS * state,
        output_bytes=4 * _BLOCK_WARPS * output,
        adjoint_bytes=4 * _BLOCK_WARPS * adjoint,
        gradient_warps=gradient_warps,
        gradient_blocks=gradient_blocks,
        gradient_bytes=4 * gradient_warps * gradient,
        macros=(
            ("ALIGNED", int(shape.aligned)),
            ("ALIGNED_MAPS", int(shape.aligned_maps)),
            ("DTYPE", DTYPES[shape.dtype]),
            ("GATE", int(shape.gate)),
            ("PACKED", int(shape.packed)),
            ("PADDED_STATE", padded_state),
            ("SOFTPLUS", int(shape.softplus)),
        ),
        chain=chain,
    )


def _chain(launcher: Launcher, shape: Shape, padded_state: int, runs: int) -> Chain | None:
    """The fastest chain, or None where segments are faster; of both directions, or None where two calls are."""
    work = (launcher, shape.length, shape.dtype.itemsize, padded_state)
    channels = (shape.batch * runs, shape.channels // runs)
    chain, time = fastest_chain(*work, shape.adds, *channels)
    segments = _segments_time(launcher, shape, padded_state)
    # Segments end early where states vanish within them, a chain never does: with much work it has to be ahead.
    ahead = 1.0 if shape.batch * shape.length * shape.channels <= _SHORT else 0.95
    if shape.both:
        one = time if time < ahead * segments else segments
        chain, time = fastest_chain(*work, shape.adds, 2 * channels[0], channels[1])
        return chain if time < 2 * ahead * one else None
    return chain if time < ahead * segments else None


def _segments_time(launcher: Launcher, shape: Shape, padded_state: int) -> float:
    """Microseconds that segments take: one launch, or three, which wait for themselves where there is little work, and
    then the time that Python takes for two more."""
    if shape.length <= CHECKPOINT:
        return 8.4 + 0.22 * shape.length
    work = shape.batch * shape.length * shape.channels * padded_state / 16
    return 3 + max(41 + 2.6e-6 * work, 26 + 10.4e-6 * work * _H100 / launcher.multiprocessors)


def _blocks(launcher: Launcher, shared_bytes: int, most: int) -> int:
    """Blocks of so much shared memory that a multiprocessor holds; each takes 1 KB besides, and so does the first."""
    return max(1, min(most, (launcher.shared_bytes_per_block + 1024) // (shared_bytes + 1024)))


def _segment_length(length: int, time: Callable[[int], float]) -> int:
    """The multiple of CHECKPOINT, up to LONGEST_SEGMENT, that takes least time, or a longer one that takes hardly more:
    fewer states are carried, and where states vanish more of a segment is passed by."""
    longest = min(LONGEST_SEGMENT, -(-length // CHECKPOINT) * CHECKPOINT)
    times = {steps: time(steps) for steps in range(longest, 0, -CHECKPOINT)}
    least = min(times.values())
    return next(steps for steps, taken in times.items() if taken <= 1.01 * least)


def _waves(launcher: Launcher, blocks: int, at_once: int) -> float:
    """A multiprocessor's time for its share of `blocks`, in units of `at_once` of them side by side. Fewer take less,
    since they share the unit for exponentials, but not in proportion."""
    full, rest = divmod(-(-blocks // launcher.multiprocessors), at_once)
    return full + ((rest + 0.35) / (at_once + 0.35) if rest else 0.0)


def checkpoint_steps(batch: int, length: int, channels: int) -> int:
    """Steps between kept states: fewer where the backward pass needs short segments. The same on every device."""
    return _SHORT_UNIT if batch * length * channels <= _SHORT_BACKWARD else CHECKPOINT


def _short_segment(resident: int, length: int, tiles: int) -> int:
    """The multiple of _SHORT_UNIT that takes least time where warps wait for themselves alone, in steps of one of them.

    Several segments need a pass that finds what enters them, nine tenths of a step each, two more launches, which are
    125 steps, and half a step a segment to carry states across. One alone is as short as where there is much work.
    """

    def time(steps: int) -> float:
        segments = -(-length // steps)
        rounds = -(-segments * tiles // resident)
        return rounds * steps if segments == 1 else 1.9 * rounds * steps + 125 + segments / 2

    longest = CHECKPOINT if length <= CHECKPOINT else min(LONGEST_SEGMENT, length - 1)
    return min(range(_SHORT_UNIT, max(longest, _SHORT_UNIT) + 1, _SHORT_UNIT), key=time)


def _parts_per_run(resident: int, items: int, columns: int) -> tuple[int, int]:
    """Blocks of `gradients` side by side in a run of `columns` of them; one takes several columns in turn, which saves
    work space, where that leaves hardly a multiprocessor idle. And how many columns one takes in all."""
    choices = {-(-columns // walks): walks for walks in range(min(columns, _MOST_WALKS), 0, -1)}
    times = {parts: -(-items * parts // resident) * walks for parts, walks in choices.items()}
    parts = min(parts for parts, time in times.items() if time <= 1.05 * min(times.values()))
    return parts, times[parts]


@dataclass(frozen=True)
class _Floats:
    """Floats of shared memory that a warp of each kernel uses."""

    padded_state: int
    warp_channels: int
    item_size: int
    aligned_maps: bool

    def _rows(self, times: int) -> int:
        """Rows<TIMES>::FLOATS: slots of 16 bytes a lane for fetched rows of channels."""
        return -(-times * self.warp_channels * self.item_size // 512) * 128

    def _maps(self, times: int) -> int:
        """Maps<TIMES>::FLOATS: the same for B or C."""
        if not self.aligned_maps or self.padded_state * self.item_size < 16:
            return 0
        return -(-times * self.padded_state * self.item_size // 512) * 128

    def segment(self, rows: int, maps: int) -> int:
        """SegmentFloats::TOTAL of cuda_segments.cuh, OUTPUT_FLOATS of cuda_forward.cu: `rows` in two stages."""
        return 2 * rows * self._rows(_TILE) + maps * (_TILE * self.padded_state + self._maps(_TILE))


class _GradientFloats(_Floats):
    def total(self) -> int:
        """GRADIENT_FLOATS of cuda_backward.cu."""
        rows = max(6 * _GRADIENT_TILE, 2 * _SWEEP_TILE) * self.warp_channels
        maps = max(2 * _GRADIENT_TILE, _SWEEP_TILE) * self.padded_state + _GRADIENT_TILE * 256
        stage = 4 * self._cells(_GRADIENT_TILE, self.warp_channels) + 2 * self._cells(_GRADIENT_TILE, self.padded_state)
        sweep = 2 * self._cells(_SWEEP_TILE, self.warp_channels) + self._cells(_SWEEP_TILE, self.padded_state)
        return rows + maps + 2 * self.warp_channels + 256 + max(2 * (stage + 256), sweep)

    def _cells(self, times: int, columns: int) -> int:
        """Cells<TIMES, COLUMNS>::SLOT: slots of 4 elements a lane."""
        return -(-times * columns // 128) * 32 * self.item_size
