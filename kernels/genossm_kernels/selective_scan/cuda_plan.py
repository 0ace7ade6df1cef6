"""How one shape of call falls to warps, segments and launches; mirrors the constants of the .cuh and .cu files."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from genossm_kernels._cuda.launch import Launcher, Module
from genossm_kernels.selective_scan.cuda_blocks import (
    CHECKPOINT,
    ONE_LAUNCH,
    SHORT_UNIT,
    GradientBlocks,
    Rows,
    SegmentBlocks,
    balanced_length,
    short_length,
)
from genossm_kernels.selective_scan.cuda_turns import Chain, fastest_chain, of_states

_FORWARD = Path(__file__).parent / "cuda_forward.cu"
_ADJOINTS = Path(__file__).parent / "cuda_adjoints.cu"
_CHAIN = Path(__file__).parent / "cuda_chain.cu"
_BACKWARD = Path(__file__).parent / "cuda_backward.cu"
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

# Elements of u up to which the forward pass has too little work to share out in segments of 128, and the backward pass.
_SHORT, _SHORT_BACKWARD = 2**22, 2**21
_GRADIENT_HALF = 4  # times of half a tile of `gradients`
# Times as many microseconds, by whether rows are of float32 and whether outputs are added to what is there.
_LONGER = {(False, False): 1.0, (True, False): 1.07, (False, True): 1.08, (True, True): 1.18}


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
    both: bool = False  # two directions in one launch, which adds the one's to the other's


@dataclass(frozen=True)
class Plan:
    """Launch geometry of one pass."""

    padded_state: int
    runs: int
    parts_per_run: int  # blocks of `gradients` beside one another in a run
    segment_length: int
    segments: int
    checkpoint: int
    forward: SegmentBlocks  # and of the adjoint pass
    gradients: GradientBlocks
    macros: tuple[tuple[str, int], ...]
    chain: Chain | None  # instead of segments, in the forward pass

    @property
    def tiles(self) -> int:
        return self.runs * self.forward.tiles_per_run

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
        own = (("BACKWARD_BLOCKS", self.gradients.at_once), ("BACKWARD_WARPS", self.gradients.warps))
        return launcher.module(_BACKWARD, (*self.macros, *own))

    def _segment_macros(self) -> tuple[tuple[str, int], ...]:
        return (*self.macros, ("SEGMENT_BLOCKS", self.forward.at_once), ("SEGMENT_WARPS", self.forward.warps))


@functools.lru_cache(maxsize=256)
def plan_for(launcher: Launcher, shape: Shape) -> Plan:
    padded_state = padded(shape.d_state)
    runs = math.lcm(shape.blocks, shape.groups)
    rows = Rows(padded_state, shape.channels // runs, shape.dtype.itemsize, shape.aligned_maps)
    forward, gradients = SegmentBlocks.of(launcher, rows), GradientBlocks.of(launcher, rows)
    segment_length = _segment_length(launcher, shape, shape.batch * runs, forward, gradients)
    segments = -(-shape.length // segment_length)
    return Plan(
        padded_state=padded_state,
        runs=runs,
        parts_per_run=gradients.parts(launcher, shape.batch * segments * runs)[0],
        segment_length=segment_length,
        segments=segments,
        checkpoint=checkpoint_steps(shape.batch, shape.length, shape.channels),
        forward=forward,
        gradients=gradients,
        macros=(
            ("ALIGNED", int(shape.aligned)),
            ("ALIGNED_MAPS", int(shape.aligned_maps)),
            ("DTYPE", DTYPES[shape.dtype]),
            ("GATE", int(shape.gate)),
            ("PACKED", int(shape.packed)),
            ("PADDED_STATE", padded_state),
            ("SOFTPLUS", int(shape.softplus)),
        ),
        chain=None if shape.backward else _chain(launcher, shape, padded_state, runs, (forward, segment_length)),
    )


def padded(states: int) -> int:
    """As the kernels hold them: 4, 8, 16, 32 or 64."""
    return max(4, 1 << (states - 1).bit_length())


def _segment_length(
    launcher: Launcher, shape: Shape, runs: int, forward: SegmentBlocks, gradients: GradientBlocks
) -> int:
    """runs: in all sequences."""
    if shape.backward and checkpoint_steps(shape.batch, shape.length, shape.channels) < CHECKPOINT:
        return short_length(gradients.resident(launcher), shape.length, runs * gradients.columns)
    if not shape.backward and shape.batch * shape.length * shape.channels <= _SHORT:
        return short_length(forward.resident_warps(launcher), shape.length, runs * forward.tiles_per_run)
    return balanced_length(launcher, shape.length, runs, forward, gradients if shape.backward else None)


def _chain(
    launcher: Launcher, shape: Shape, padded_state: int, runs: int, segments: tuple[SegmentBlocks, int]
) -> Chain | None:
    """The fastest chain, or None where segments are faster; of both directions, or None where two calls are.

    segments: what a call would be without it, and steps of one.
    """
    work = _Work(launcher, shape, padded_state, runs, *segments)
    if not shape.both:
        return work.one_way(shape.adds)[0]
    chain, time = work.chain(adds=True, ways=2)
    apart = sum(work.one_way(adds)[1] for adds in (False, True))
    return chain if time < work.ahead * apart else None


@dataclass(frozen=True)
class _Work:
    """Of a forward call."""

    launcher: Launcher
    shape: Shape
    padded_state: int
    runs: int  # in each sequence
    blocks: SegmentBlocks
    segment_length: int

    @property
    def ahead(self) -> float:
        """Segments end early where states vanish within them, a chain never does: with much work it has to be ahead."""
        return 1.0 if self.shape.batch * self.shape.length * self.shape.channels <= _SHORT else 0.95

    def one_way(self, adds: bool) -> tuple[Chain | None, float]:
        """The fastest chain and its microseconds, or those of segments."""
        chain, time = self.chain(adds)
        segments = self.segments(adds)
        return (chain, time) if time < self.ahead * segments else (None, segments)

    def chain(self, adds: bool, ways: int = 1) -> tuple[Chain | None, float]:
        shape = self.shape
        channels = (ways * shape.batch * self.runs, shape.channels // self.runs)
        return fastest_chain(self.launcher, shape.length, shape.dtype.itemsize, self.padded_state, adds, *channels)

    def segments(self, adds: bool) -> float:
        """Microseconds of all launches; of one warp where there is little work in one launch."""
        shape = self.shape
        each = -(-shape.length // self.segment_length)
        time = self.blocks.microseconds(self.launcher, self.segment_length, shape.batch * self.runs * each)
        time *= of_states(min(self.padded_state, 16)) * _LONGER[shape.dtype.itemsize == 4, adds]
        return time if each > 1 else max(12.0, 9.4 + 0.22 * shape.length, ONE_LAUNCH * time)


def checkpoint_steps(batch: int, length: int, channels: int) -> int:
    """Steps between kept states: fewer where the backward pass needs short segments. The same on every device."""
    return SHORT_UNIT if batch * length * channels <= _SHORT_BACKWARD else CHECKPOINT
