"""How one shape of call falls to warps, segments and launches; mirrors the constants of the .cuh and .cu files."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from genossm_kernels._cuda.launch import Launcher, Module

_FORWARD = Path(__file__).parent / "cuda_forward.cu"
_BACKWARD = Path(__file__).parent / "cuda_backward.cu"
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

CHECKPOINT = 128  # steps between the states kept for the backward pass
LONGEST_SEGMENT = 2048
_TILE = 16  # of all forward kernels and the adjoint pass
_GRADIENT_TILE, _SWEEP_TILE = 8, 32
SCRATCH_FLOATS = CHECKPOINT // _GRADIENT_TILE * 512  # a warp of `gradients`: the state before each tile
_MULTIPROCESSOR_WARPS = 16  # as 128 registers a thread allow; `gradients` takes twice that and holds half as many
_ROUNDS = 4  # of the warps a device holds at once: enough for an even end, few enough for long segments


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
    aligned: bool
    aligned_maps: bool


@dataclass(frozen=True)
class Plan:
    """Launch geometry; `*_bytes` is the shared memory of a block."""

    padded_state: int
    runs: int
    tiles_per_run: int
    segment_length: int
    segments: int
    warps: int
    state_bytes: int
    output_bytes: int
    adjoint_bytes: int
    gradient_warps: int
    gradient_bytes: int
    macros: tuple[tuple[str, int], ...]

    @property
    def tiles(self) -> int:
        return self.runs * self.tiles_per_run

    @property
    def parts_per_run(self) -> int:
        """Blocks of `gradients` beside one another in a run."""
        return -(-self.tiles_per_run // self.gradient_warps)

    @property
    def parts(self) -> int:
        return self.runs * self.parts_per_run

    def forward_module(self, launcher: Launcher) -> Module:
        blocks = _MULTIPROCESSOR_WARPS // self.warps
        return launcher.module(_FORWARD, (*self.macros, ("FORWARD_BLOCKS", blocks), ("FORWARD_WARPS", self.warps)))

    def backward_module(self, launcher: Launcher) -> Module:
        blocks = _MULTIPROCESSOR_WARPS // self.warps
        own = (("ADJOINT_BLOCKS", blocks), ("ADJOINT_WARPS", self.warps), ("BACKWARD_WARPS", self.gradient_warps))
        return launcher.module(_BACKWARD, (*self.macros, *own))


@functools.lru_cache(maxsize=256)
def plan_for(launcher: Launcher, shape: Shape) -> Plan:
    state_lanes = 1
    while 4 * state_lanes < shape.d_state:
        state_lanes *= 2
    floats = _Floats(4 * state_lanes, 128 // state_lanes, shape.dtype.itemsize, shape.aligned_maps)
    runs = math.lcm(shape.blocks, shape.groups)
    tiles_per_run = -(-(shape.channels // runs) // floats.warp_channels)
    segment_length = _segment_length(launcher, shape.length, shape.batch * runs * tiles_per_run)

    state, output, adjoint, gradient = floats.state(), floats.output(), floats.adjoint(), floats.gradient()
    warps = 8
    while warps > 1 and 2 * warps * 4 * output > launcher.shared_bytes_per_block:
        warps //= 2
    widest = 8
    while widest > 1 and widest * 4 * gradient > launcher.shared_bytes_per_block:
        widest //= 2
    gradient_warps = -(-tiles_per_run // -(-tiles_per_run // widest))  # as few idle ones as the widest block allows
    return Plan(
        padded_state=floats.padded_state,
        runs=runs,
        tiles_per_run=tiles_per_run,
        segment_length=segment_length,
        segments=-(-shape.length // segment_length),
        warps=warps,
        state_bytes=4 * warps * state,
        output_bytes=4 * warps * output,
        adjoint_bytes=4 * warps * adjoint,
        gradient_warps=gradient_warps,
        gradient_bytes=4 * gradient_warps * gradient,
        macros=(
            ("ALIGNED", int(shape.aligned)),
            ("ALIGNED_MAPS", int(shape.aligned_maps)),
            ("DTYPE", DTYPES[shape.dtype]),
            ("GATE", int(shape.gate)),
            ("SOFTPLUS", int(shape.softplus)),
            ("STATE_LANES", state_lanes),
        ),
    )


def _segment_length(launcher: Launcher, length: int, tiles: int) -> int:
    """A multiple of CHECKPOINT that gives the device its rounds of warps, up to LONGEST_SEGMENT."""
    wanted = max(1, launcher.multiprocessors * _MULTIPROCESSOR_WARPS * _ROUNDS // tiles)
    return min(LONGEST_SEGMENT, -(-length // (wanted * CHECKPOINT)) * CHECKPOINT)


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

    def _tile(self, fetched_rows: int, maps: int, constants: int) -> int:
        converted = _TILE * (2 * self.warp_channels + maps * self.padded_state) + constants * self.warp_channels
        return converted + fetched_rows * self._rows(_TILE) + maps * self._maps(_TILE)

    def state(self) -> int:
        """STATE_FLOATS of cuda_forward.cu."""
        return self._tile(fetched_rows=2, maps=1, constants=1)

    def output(self) -> int:
        """OUTPUT_FLOATS of cuda_forward.cu."""
        return self._tile(fetched_rows=3, maps=2, constants=2)

    def adjoint(self) -> int:
        """ADJOINT_FLOATS of cuda_backward.cu."""
        return self._tile(fetched_rows=3, maps=1, constants=1)

    def gradient(self) -> int:
        """GRADIENT_FLOATS of cuda_backward.cu."""
        rows = max(6 * _GRADIENT_TILE, 2 * _SWEEP_TILE) * self.warp_channels
        maps = _SWEEP_TILE * self.padded_state + 2 * _GRADIENT_TILE * 2 * self.padded_state
        stage = 4 * self._rows(_GRADIENT_TILE) + 2 * self._maps(_GRADIENT_TILE) + 512
        sweep = 2 * self._rows(_SWEEP_TILE) + self._maps(_SWEEP_TILE)
        return rows + maps + 2 * self.warp_channels + max(2 * stage, sweep)
