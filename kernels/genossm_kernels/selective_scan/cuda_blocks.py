"""Blocks of the kernels that work in segments: what they hold of a multiprocessor, and how segments share them out."""

from __future__ import annotations

from dataclasses import dataclass

from genossm_kernels._cuda.launch import Launcher

CHECKPOINT = 128  # steps between the states kept for the backward pass, where there is work enough for a device
SHORT_UNIT = 64  # the same where there is not
LONGEST_SEGMENT = 2048
_TILE = 16  # of the forward kernels and the adjoint pass
_GRADIENT_TILE, _SWEEP_TILE = 8, 16
_GRADIENT_WARPS, _GRADIENT_BLOCKS = 4, 3  # of `gradients`: small blocks, since their warps wait for one another
_MOST_WALKS = 8
_BLOCK_WARPS, _MOST_BLOCKS = 4, 3  # of the forward kernels: 12 warps a multiprocessor, 168 registers a thread
_SEGMENT_START = 6  # steps that the beginning of a segment takes as long as
_ALONE = 0.35  # of a block's time is not shared with others on its multiprocessor
_LAUNCHES, _STEP = 15.5, 0.3125  # microseconds: of three launches, and of a step of one block besides
ONE_LAUNCH = 0.55  # of a forward call's time is left where one segment is a whole sequence
_ADJOINT_STEP = 0.73  # of a step of `gradients`: all that a multiprocessor holds of both


@dataclass(frozen=True)
class Rows:
    """What decides how channels fall to warps. `aligned_maps`: rows of B and C lie in 16-byte pieces."""

    padded_state: int
    run_length: int  # channels that share a direction and a group
    item_size: int
    aligned_maps: bool


@dataclass(frozen=True)
class SegmentBlocks:
    """Of the forward kernels and the adjoint pass; `*_bytes` is the shared memory of one."""

    tiles_per_run: int  # warps' tiles of channels
    at_once: int  # on a multiprocessor
    state_bytes: int
    output_bytes: int
    adjoint_bytes: int
    warps: int = _BLOCK_WARPS

    @classmethod
    def of(cls, launcher: Launcher, rows: Rows) -> SegmentBlocks:
        floats = _Floats(rows, 64 * min(rows.padded_state, 16) // rows.padded_state)
        state, output, adjoint = (4 * _BLOCK_WARPS * floats.segment(*fetched) for fetched in ((2, 1), (3, 2), (3, 1)))
        at_once = _held(launcher, output, _MOST_BLOCKS)
        return cls(-(-rows.run_length // floats.warp_channels), at_once, state, output, adjoint)

    def resident_warps(self, launcher: Launcher) -> int:
        return launcher.multiprocessors * self.at_once * self.warps

    def time(self, launcher: Launcher, steps: int, segments: int) -> float:
        """Of so many segments of a run, in steps of `at_once` blocks side by side on every multiprocessor. Fewer blocks
        take less, as they share the unit for exponentials, but not in proportion."""
        blocks = -(-segments * self.tiles_per_run // self.warps)
        full, rest = divmod(-(-blocks // launcher.multiprocessors), self.at_once)
        return (steps + _SEGMENT_START) * (full + ((rest + _ALONE) / (self.at_once + _ALONE) if rest else 0.0))

    def microseconds(self, launcher: Launcher, steps: int, segments: int) -> float:
        """Of forward launches on an H100, bfloat16, 16 states; kernels/benchmarks/turns.py measures them."""
        return _LAUNCHES + _STEP * (self.at_once + _ALONE) * self.time(launcher, steps, segments)


@dataclass(frozen=True)
class GradientBlocks:
    """Of `gradients`."""

    columns: int  # of warps' tiles, in a run
    at_once: int
    shared_bytes: int
    warps: int

    @classmethod
    def of(cls, launcher: Launcher, rows: Rows) -> GradientBlocks:
        floats = _GradientFloats(rows, 256 // rows.padded_state)
        tiles, one = -(-rows.run_length // floats.warp_channels), 4 * floats.total()
        warps = min(_GRADIENT_WARPS, tiles)
        while warps > 1 and warps * one > launcher.shared_bytes_per_block:
            warps -= 1
        return cls(-(-tiles // warps), _held(launcher, warps * one, _GRADIENT_BLOCKS), warps * one, warps)

    def resident(self, launcher: Launcher) -> int:
        return launcher.multiprocessors * self.at_once

    def parts(self, launcher: Launcher, segments: int) -> tuple[int, int]:
        """Blocks side by side in a run; one takes several columns in turn, which saves work space, where that leaves
        hardly a multiprocessor idle. And how many columns one takes in all."""
        choices = {-(-self.columns // walks): walks for walks in range(min(self.columns, _MOST_WALKS), 0, -1)}
        times = {parts: -(-segments * parts // self.resident(launcher)) * walks for parts, walks in choices.items()}
        parts = min(parts for parts, time in times.items() if time <= 1.05 * min(times.values()))
        return parts, times[parts]


def balanced_length(
    launcher: Launcher, length: int, runs: int, forward: SegmentBlocks, backward: GradientBlocks | None
) -> int:
    """The multiple of CHECKPOINT, up to LONGEST_SEGMENT, that takes least time, or a longer one that takes hardly more:
    fewer states are carried, and where states vanish more of a segment is passed by.   runs: in all sequences."""

    def time(steps: int) -> float:
        segments = -(-length // steps) * runs
        one = forward.time(launcher, steps, segments)
        if backward is None:
            return one if steps < length else ONE_LAUNCH * one
        return _ADJOINT_STEP * one + (steps + _SEGMENT_START) * backward.parts(launcher, segments)[1]

    longest = min(LONGEST_SEGMENT, -(-length // CHECKPOINT) * CHECKPOINT)
    times = {steps: time(steps) for steps in range(longest, 0, -CHECKPOINT)}
    least = min(times.values())
    return next(steps for steps, taken in times.items() if taken <= 1.01 * least)


def short_length(resident: int, length: int, tiles: int) -> int:
    """The multiple of SHORT_UNIT that takes least time where warps wait for themselves alone, in steps of one of them.

    Several segments need a pass that finds what enters them, nine tenths of a step each, two more launches, which are
    125 steps, and half a step a segment to carry states across. One alone is as short as where there is much work.
    """

    def time(steps: int) -> float:
        segments = -(-length // steps)
        rounds = -(-segments * tiles // resident)
        return rounds * steps if segments == 1 else 1.9 * rounds * steps + 125 + segments / 2

    longest = CHECKPOINT if length <= CHECKPOINT else min(LONGEST_SEGMENT, length - 1)
    return min(range(SHORT_UNIT, max(longest, SHORT_UNIT) + 1, SHORT_UNIT), key=time)


def _held(launcher: Launcher, shared_bytes: int, most: int) -> int:
    """Blocks of so much shared memory that a multiprocessor holds; each takes 1 KB besides, and so does the first."""
    return max(1, min(most, (launcher.shared_bytes_per_block + 1024) // (shared_bytes + 1024)))


@dataclass(frozen=True)
class _Floats:
    """Floats of shared memory that a warp of each kernel uses."""

    of: Rows
    warp_channels: int

    def _rows(self, times: int) -> int:
        """Rows<TIMES>::FLOATS: slots of 16 bytes a lane for fetched rows of channels."""
        return -(-times * self.warp_channels * self.of.item_size // 512) * 128

    def _maps(self, times: int) -> int:
        """Maps<TIMES>::FLOATS: the same for B or C."""
        if not self.of.aligned_maps or self.of.padded_state * self.of.item_size < 16:
            return 0
        return -(-times * self.of.padded_state * self.of.item_size // 512) * 128

    def segment(self, rows: int, maps: int) -> int:
        """SegmentFloats::TOTAL of cuda_segments.cuh, OUTPUT_FLOATS of cuda_forward.cu: `rows` in two stages."""
        return 2 * rows * self._rows(_TILE) + maps * (_TILE * self.of.padded_state + self._maps(_TILE))


class _GradientFloats(_Floats):
    def total(self) -> int:
        """GRADIENT_FLOATS of cuda_backward.cu."""
        channels, states = self.warp_channels, self.of.padded_state
        rows = max(6 * _GRADIENT_TILE, 2 * _SWEEP_TILE) * channels
        maps = max(2 * _GRADIENT_TILE, _SWEEP_TILE) * states + _GRADIENT_TILE * 256
        stage = 4 * self._cells(_GRADIENT_TILE, channels) + 2 * self._cells(_GRADIENT_TILE, states)
        sweep = 2 * self._cells(_SWEEP_TILE, channels) + self._cells(_SWEEP_TILE, states)
        return rows + maps + 2 * channels + 256 + max(2 * (stage + 256), sweep)

    def _cells(self, times: int, columns: int) -> int:
        """Cells<TIMES, COLUMNS>::SLOT: slots of 4 elements a lane."""
        return -(-times * columns // 128) * 32 * self.of.item_size
