"""How a convolution on a GPU is shared out: by threads that hold a few taps, or by warps that hold many."""

from __future__ import annotations

import ctypes
import functools
import operator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from genossm_kernels._cuda.launch import Launcher, Module
from genossm_kernels._cuda.program import Launch
from genossm_kernels.causal_conv1d.contract import ConvArguments

NARROW = Path(__file__).parent / "cuda_kernels.cu"
WIDE = Path(__file__).parent / "cuda_wide.cu"
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_THREADS, _SUM_THREADS = 128, 512
_SHORTEST_CHUNK, _LONGEST_CHUNK = 16, 256
_REGISTERS = 96  # for what a thread holds a tap: inputs and weights, and their gradients in the backward pass
_THREADS_WANTED = 4096  # a multiprocessor: two rounds of the threads it holds

# Of cuda_wide.cu.
_FEWEST_TAPS, _MOST_TAPS = 5, 32
_FEWEST_ROWS = 12  # of a step
_LONGEST_RUN = 4096

# fmt: off
_POINTERS = (
    "x", "grad_y", "initial_state", "grad_final_state", "weight", "bias", "seq_idx",
    "y", "final_state", "grad_x", "grad_initial_state", "weight_partial",
    "grad_weight", "grad_bias",
)
_STRIDES = (
    "x_batch", "x_row", "y_batch", "y_row", "grad_y_batch", "grad_y_row", "grad_x_batch", "grad_x_row", "length",
)
_COUNTS = ("batch", "channels", "blocks", "pieces_per_block", "chunk", "chunks")
# fmt: on


class ConvParameters(ctypes.Structure):
    """`ConvParams` of cuda_common.cuh: the same fields in the same order."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in _STRIDES),
        ("reversed_blocks", ctypes.c_uint64),
        *((name, ctypes.c_int32) for name in _COUNTS),
    )


class Rows(NamedTuple):
    """What a pass reads and writes in pieces."""

    start: int  # addresses, or-ed
    strides: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, *tensors: Tensor) -> Rows:
        return cls(functools.reduce(operator.or_, (t.data_ptr() for t in tensors)), tuple(t.stride() for t in tensors))

    def whole(self, elements: int, size: int) -> bool:
        """Whether all rows begin on pieces of so many elements of `size` bytes."""
        return self.start % (elements * size) == 0 and all(
            stride % elements == 0 for strides in self.strides for stride in strides[:-1]
        )


class Plan(NamedTuple):
    """Parameters without addresses and strides of outputs, and the launches."""

    parameters: ConvParameters
    launches: list[Launch]


def forward_plan(launcher: Launcher, a: ConvArguments, rows: Rows) -> Plan:
    width = a.weight.shape[1]
    if fits(a, rows):
        return _wide(launcher, a, "convolve_wide", _forward_shape(width), 1)[0]
    return _narrow(launcher, a, rows, "convolve", 2)[0]


def backward_plan(launcher: Launcher, a: ConvArguments, rows: Rows, *, states: bool, add: bool) -> Plan:
    """states: there is an initial state, or a gradient of the final one."""
    width, tensors, adding = a.weight.shape[1], 3 if add else 2, (("ADD", 1),) if add else ()
    if fits(a, rows) and not states:
        plan, module = _wide(launcher, a, "convolve_wide_gradients", _backward_shape(width, add=add), tensors, adding)
    else:
        plan, module = _narrow(launcher, a, rows, "convolve_gradients", 4, adding)
    columns, size = a.weight.numel() + a.weight.shape[0], ctypes.sizeof(plan.parameters)
    plan.launches.append(module.bind("sum_chunks", -(-columns // 32), _SUM_THREADS, 4 * _SUM_THREADS, size))
    return plan


_Macros = tuple[tuple[str, int], ...]


def _narrow(
    launcher: Launcher, a: ConvArguments, rows: Rows, kernel: str, held: int, macros: _Macros = ()
) -> tuple[Plan, Module]:
    """held: numbers a tap and channel that a thread keeps."""
    piece = 16 // a.x.element_size()
    while piece > 1 and held * a.weight.shape[1] * piece > _REGISTERS:
        piece //= 2
    p = _parameters(a, piece)
    pieces = p.batch * p.blocks * p.pieces_per_block
    wanted = max(1, launcher.multiprocessors * _THREADS_WANTED // pieces)
    # A chunk reads width - 1 rows of its neighbours besides its own.
    width = a.weight.shape[1]
    longest, shortest = max(_LONGEST_CHUNK, 16 * width), max(_SHORTEST_CHUNK, 2 * width)
    p.chunk = min(longest, max(shortest, -(-p.length // wanted)))
    p.chunks = -(-p.length // p.chunk)
    whole = _block_length(a) % piece == 0 and rows.whole(piece, a.x.element_size())
    packed = a.seq_idx is not None
    shape = (("ALIGNED", int(whole)), ("PACKED", int(packed)), ("PIECE", piece))
    module = launcher.module(NARROW, (*_call_macros(a), *shape, *macros))
    blocks = -(-pieces * p.chunks // _THREADS)
    return Plan(p, [module.bind(kernel, blocks, _THREADS, 0, ctypes.sizeof(p))]), module


def fits(a: ConvArguments, rows: Rows) -> bool:
    """Whether cuda_wide.cu does such a call: all in pieces of 16 bytes, no packed sequences."""
    size = a.x.element_size()
    taps = _FEWEST_TAPS <= a.weight.shape[1] <= _MOST_TAPS
    return taps and a.seq_idx is None and _block_length(a) * size % 16 == 0 and rows.whole(16 // size, size)


class Shape(NamedTuple):
    """Of what registers and shared memory hold."""

    piece: int  # channels of a lane
    warps: int  # that a multiprocessor is to hold: the more, the fewer registers has each
    stages: int  # steps in shared memory


def _forward_shape(width: int) -> Shape:
    if width <= 24:
        return Shape(2, 16 if width <= 16 else 12, 3)
    return Shape(2, 8, 3)


def _backward_shape(width: int, *, add: bool) -> Shape:
    if width <= 12:
        return Shape(2, 12, 2)
    if width <= 16:
        return Shape(2, 8, 2) if add else Shape(1, 16, 3)
    return Shape(1, 12 if width <= 24 else 8, 2)


class Shared(NamedTuple):
    """How warps share out a sequence, and what launches them."""

    module: Module
    blocks: int
    threads: int
    shared_bytes: int
    tiles: int  # of a block of channels
    run: int
    runs: int


def plan_runs(
    launcher: Launcher, a: ConvArguments, kernel: tuple[Path, str], shape: Shape, tensors: int, macros: _Macros = ()
) -> Shared:
    """kernel: its source and name.   tensors: whose rows wait in shared memory."""
    width, tile, warps, length = a.weight.shape[1], 32 * shape.piece, 4, a.x.shape[1]
    step = width * -(-_FEWEST_ROWS // width)
    bytes_of_warp = shape.stages * tensors * step * tile * a.x.element_size()
    while warps > 1 and warps * bytes_of_warp > launcher.shared_bytes_per_block:
        warps //= 2
    own = (("BLOCKS", shape.warps // warps), ("PIECE", shape.piece), ("STAGES", shape.stages), ("WARPS", warps))
    module = launcher.module(kernel[0], (*_call_macros(a), *own, *macros))
    threads, shared = 32 * warps, warps * bytes_of_warp
    tiles_of_block = -(-_block_length(a) // tile)
    tiles = a.x.shape[0] * len(a.reverse) * tiles_of_block
    # As many runs as the device holds at once, or some times that: each costs a step of rows besides its own.
    at_once = max(1, warps * module.resident_blocks(kernel[1], threads, shared) // tiles)
    runs = at_once * -(-length // (at_once * _LONGEST_RUN))
    run = max(4 * width, -(-length // runs))
    run += -run % step  # whole steps
    runs = -(-length // run)
    return Shared(module, -(-tiles * runs // warps), threads, shared, tiles_of_block, run, runs)


def _wide(
    launcher: Launcher, a: ConvArguments, kernel: str, shape: Shape, tensors: int, macros: _Macros = ()
) -> tuple[Plan, Module]:
    shared = plan_runs(launcher, a, (WIDE, kernel), shape, tensors, macros)
    p = _parameters(a, 32 * shape.piece)
    p.chunk, p.chunks = shared.run, shared.runs
    launch = shared.module.bind(kernel, shared.blocks, shared.threads, shared.shared_bytes, ctypes.sizeof(p))
    return Plan(p, [launch]), shared.module


def _block_length(a: ConvArguments) -> int:
    return a.x.shape[2] // len(a.reverse)


def _parameters(a: ConvArguments, piece: int) -> ConvParameters:
    """The parameters common to both passes but for addresses and chunks."""
    p = ConvParameters()
    p.x_batch, p.x_row = a.x.stride()[:2]
    p.batch, p.length, p.channels = a.x.shape
    p.blocks = len(a.reverse)
    p.reversed_blocks = sum(1 << index for index, reverse in enumerate(a.reverse) if reverse)
    p.pieces_per_block = -(-_block_length(a) // piece)
    return p


def _call_macros(a: ConvArguments) -> _Macros:
    return (("DTYPE", DTYPES[a.x.dtype]), ("SILU", int(a.silu)), ("WIDTH", a.weight.shape[1]))
