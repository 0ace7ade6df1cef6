"""The GPU back end: CUDA C++ compiled at run time (cuda_kernels.cu)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genossm_kernels._cuda.launch import Launcher, address, launcher_for, unavailable_reason
from genossm_kernels._cuda.program import Layout, Program
from genossm_kernels.causal_conv1d.contract import ConvArguments, ConvCall, ConvGradients, kind_of

_SOURCE = Path(__file__).parent / "cuda_kernels.cu"
_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
PLACES = True
_WIDEST = 128
_LARGEST_BLOCKS = 64  # bits of `reversed_blocks`
_THREADS, _SUM_THREADS = 128, 512
_SHORTEST_CHUNK, _LONGEST_CHUNK = 16, 256
_REGISTERS = 96  # for what a thread holds a tap: inputs and weights, and their gradients in the backward pass
_THREADS_WANTED = 4096  # a multiprocessor: two rounds of the threads it holds

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
    """`ConvParams` of cuda_kernels.cu: the same fields in the same order."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in _STRIDES),
        ("reversed_blocks", ctypes.c_uint64),
        *((name, ctypes.c_int32) for name in _COUNTS),
    )


def unavailable(call: ConvCall) -> str | None:
    """None if this device and such arguments are within what the kernels do."""
    if call.dtype not in _DTYPES:
        return f"it takes float32, bfloat16 and float16, not {call.dtype}"
    if call.width > _WIDEST:
        return f"it takes a width up to {_WIDEST}, not {call.width}"
    if len(call.reverse) > _LARGEST_BLOCKS:
        return f"it takes up to {_LARGEST_BLOCKS} blocks of channels in `reverse`, not {len(call.reverse)}"
    return unavailable_reason(call.device)


class _Forward(NamedTuple):
    """What calls of one kind share."""

    program: Program
    y: Layout
    final_state: Layout


class _Backward(NamedTuple):
    """The same of the backward pass."""

    program: Program
    x: Layout
    weight: Layout
    bias: Layout | None
    initial_state: Layout | None
    partial: Layout


def forward(arguments: ConvArguments, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """y and the final state; the backward pass recomputes what it needs from the inputs."""
    launcher = launcher_for(arguments.x.device)
    return launcher.run(_forward, launcher, arguments, y)


def _forward(stream: Any, launcher: Launcher, a: ConvArguments, y: Tensor | None) -> tuple[Tensor, Tensor]:
    x, strides = a.x.data_ptr(), None if y is None else y.stride()
    start = x if y is None else x | y.data_ptr()
    prepared, key = (a.kind or kind_of(a)).prepared, (launcher, start % 16, strides)
    call = prepared.get(key)
    if call is None:
        call = prepared[key] = _prepare_forward(launcher, a, start, strides)
    final_state = launcher.empty(call.final_state)
    if y is None:
        y = launcher.empty(call.y)
    inputs = (x, address(a.initial_state), a.weight.data_ptr(), address(a.bias), address(a.seq_idx))
    call.program.run(stream, *inputs, y.data_ptr(), final_state.data_ptr())
    return y, final_state


def backward(
    arguments: ConvArguments,
    grad_y: Tensor,
    grad_final_state: Tensor | None,
    *,
    grad_x: Tensor | None = None,
    add: bool = False,
) -> ConvGradients:
    """All gradients, each sum in a fixed order: the same bits every time."""
    launcher = launcher_for(arguments.x.device)
    return launcher.run(_backward, launcher, arguments, grad_y, grad_final_state, grad_x, add)


def _backward(
    stream: Any,
    launcher: Launcher,
    a: ConvArguments,
    grad_y: Tensor,
    grad_final_state: Tensor | None,
    grad_x: Tensor | None,
    add: bool,
) -> ConvGradients:
    x, gradient, written = a.x.data_ptr(), grad_y.data_ptr(), address(grad_x)
    strides = None if grad_x is None else grad_x.stride()
    prepared, key = (
        (a.kind or kind_of(a)).prepared,
        (launcher, (x | gradient | written) % 16, grad_y.stride(), strides, add),
    )
    call = prepared.get(key)
    if call is None:
        call = prepared[key] = _prepare_backward(launcher, a, x | gradient | written, grad_y.stride(), strides, add)
    if grad_x is None:
        grad_x = launcher.empty(call.x)
    weight, partial = launcher.empty(call.weight), launcher.empty(call.partial)
    bias = None if call.bias is None else launcher.empty(call.bias)
    initial = None if call.initial_state is None else launcher.empty(call.initial_state)
    call.program.run(
        stream,
        *(x, gradient, address(a.initial_state), address(grad_final_state)),
        *(a.weight.data_ptr(), address(a.bias), address(a.seq_idx)),
        *(grad_x.data_ptr(), address(initial), partial.data_ptr(), weight.data_ptr(), address(bias)),
    )
    return ConvGradients(x=grad_x, weight=weight, bias=bias, initial_state=initial)


def _prepare_forward(launcher: Launcher, a: ConvArguments, start: int, written: tuple[int, ...] | None) -> _Forward:
    """start: addresses of rows, or-ed.   written: strides of the caller's memory for y, if there is any."""
    batch, _, channels = a.x.shape
    y = Layout.of(a.x.shape, a.x.dtype)
    final_state = Layout.of((batch, a.weight.shape[1] - 1, channels), a.x.dtype)
    piece = _piece(a, 2)
    p, threads = _parameters(a, launcher, piece)
    p.y_batch, p.y_row, _ = written or y.strides
    module = launcher.module(_SOURCE, _macros(a, piece, start, (a.x.stride(), written or y.strides)))
    launch = module.bind("convolve", -(-threads // _THREADS), _THREADS, 0, ctypes.sizeof(p))
    addresses = ("x", "initial_state", "weight", "bias", "seq_idx", "y", "final_state")
    return _Forward(Program([launch], p, addresses), y, final_state)


def _prepare_backward(
    launcher: Launcher,
    a: ConvArguments,
    start: int,
    grad_y: tuple[int, ...],
    grad_x: tuple[int, ...] | None,
    add: bool,
) -> _Backward:
    """start: addresses of rows, or-ed.   grad_y, grad_x: strides, of the caller's memory for grad_x if there is any."""
    channels, width = a.weight.shape
    own, weight = Layout.of(a.x.shape, a.x.dtype), Layout.of(a.weight.shape, torch.float32)
    piece = _piece(a, 4)
    p, threads = _parameters(a, launcher, piece)
    p.grad_y_batch, p.grad_y_row, _ = grad_y
    p.grad_x_batch, p.grad_x_row, _ = grad_x or own.strides
    macros = _macros(a, piece, start, (a.x.stride(), grad_y, grad_x or own.strides))
    module = launcher.module(_SOURCE, (*macros, ("ADD", 1)) if add else macros)
    size, columns = ctypes.sizeof(p), channels * (width + 1)
    launches = [
        module.bind("convolve_gradients", -(-threads // _THREADS), _THREADS, 0, size),
        module.bind("sum_chunks", -(-columns // 32), _SUM_THREADS, 4 * _SUM_THREADS, size),
    ]
    addresses = (
        *("x", "grad_y", "initial_state", "grad_final_state", "weight", "bias", "seq_idx"),
        *("grad_x", "grad_initial_state", "weight_partial", "grad_weight", "grad_bias"),
    )
    return _Backward(
        program=Program(launches, p, addresses),
        x=own,
        weight=weight,
        bias=None if a.bias is None else Layout.of((channels,), torch.float32),
        initial_state=None if a.initial_state is None else Layout.of(a.initial_state.shape, a.x.dtype),
        partial=Layout.of((p.batch * p.chunks, channels, width + 1), torch.float32),
    )


def _piece(arguments: ConvArguments, held: int) -> int:
    """Channels of a thread that holds `held` numbers a tap: a power of two, up to 16 bytes; 1 where taps are many."""
    piece = 16 // arguments.x.element_size()
    while piece > 1 and held * arguments.weight.shape[1] * piece > _REGISTERS:
        piece //= 2
    return piece


def _parameters(arguments: ConvArguments, launcher: Launcher, piece: int) -> tuple[ConvParameters, int]:
    """The parameters common to both passes without addresses, and the number of threads that share the work."""
    a, x = arguments, arguments.x
    p = ConvParameters()
    p.x_batch, p.x_row = x.stride()[:2]
    p.batch, p.length, p.channels = x.shape
    p.blocks = len(a.reverse)
    p.reversed_blocks = sum(1 << index for index, reverse in enumerate(a.reverse) if reverse)
    width = a.weight.shape[1]
    p.pieces_per_block = -(-(p.channels // p.blocks) // piece)
    pieces = p.batch * p.blocks * p.pieces_per_block
    wanted = max(1, launcher.multiprocessors * _THREADS_WANTED // pieces)
    # A chunk reads width - 1 rows of its neighbours besides its own.
    longest, shortest = max(_LONGEST_CHUNK, 16 * width), max(_SHORTEST_CHUNK, 2 * width)
    p.chunk = min(longest, max(shortest, -(-p.length // wanted)))
    p.chunks = -(-p.length // p.chunk)
    return p, pieces * p.chunks


def _macros(
    arguments: ConvArguments, piece: int, start: int, rows: Sequence[tuple[int, ...]]
) -> tuple[tuple[str, int], ...]:
    """What the source is compiled for. start: addresses, or-ed, and rows: strides of what may be read in pieces."""
    block_length = arguments.x.shape[2] // len(arguments.reverse)
    begins = start % (piece * arguments.x.element_size()) == 0
    whole = begins and block_length % piece == 0 and all(step % piece == 0 for row in rows for step in row[:-1])
    return (
        ("ALIGNED", int(whole)),
        ("DTYPE", _DTYPES[arguments.x.dtype]),
        ("PACKED", int(arguments.seq_idx is not None)),
        ("PIECE", piece),
        ("SILU", int(arguments.silu)),
        ("WIDTH", arguments.weight.shape[1]),
    )
