"""The GPU back end: CUDA C++ compiled at run time (cuda_kernels.cu)."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from genossm_kernels._cuda.launch import Launcher, launcher_for, unavailable_reason
from genossm_kernels.causal_conv1d.contract import ConvArguments, ConvCall, ConvGradients

_SOURCE = Path(__file__).parent / "cuda_kernels.cu"
_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
PLACES = True
_WIDEST = 128
_LARGEST_BLOCKS = 64  # bits of `reversed_blocks`
_THREADS = 128
_SHORTEST_CHUNK, _LONGEST_CHUNK = 16, 256
_REGISTERS = 96  # for what a thread holds a tap: inputs and weights, and their gradients in the backward pass
_THREADS_WANTED = 4096  # a multiprocessor: two rounds of the threads it holds

# fmt: off
_POINTERS = (
    "x", "grad_y", "initial_state", "grad_final_state", "weight", "bias", "seq_idx",
    "y", "final_state", "grad_x", "grad_initial_state", "weight_partial",
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


def forward(arguments: ConvArguments) -> tuple[Tensor, Tensor]:
    """y and the final state; the backward pass recomputes what it needs from the inputs."""
    launcher = launcher_for(arguments.x.device)
    x, width = arguments.x, arguments.weight.shape[1]
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    final_state = torch.empty(x.shape[0], width - 1, x.shape[2], dtype=x.dtype, device=x.device)
    piece = _piece(arguments, 2)
    parameters, threads = _parameters(arguments, launcher, piece)
    parameters.y, parameters.y_batch, parameters.y_row = y.data_ptr(), y.stride(0), y.stride(1)
    parameters.final_state = final_state.data_ptr()
    module = launcher.module(_SOURCE, _macros(arguments, piece, (x,)))
    with launcher.active() as stream:
        module.launch(stream, "convolve", -(-threads // _THREADS), _THREADS, 0, parameters)
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
    x, weight = arguments.x, arguments.weight
    channels, width = weight.shape
    piece = _piece(arguments, 4)
    parameters, threads = _parameters(arguments, launcher, piece)
    if grad_x is None:
        grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    grad_initial = None if arguments.initial_state is None else torch.empty_like(arguments.initial_state)
    chunks = x.shape[0] * parameters.chunks
    partial = torch.empty(chunks, channels, width + 1, dtype=torch.float32, device=x.device)
    parameters.grad_y, parameters.grad_y_batch, parameters.grad_y_row = grad_y.data_ptr(), *grad_y.stride()[:2]
    if grad_final_state is not None:
        parameters.grad_final_state = grad_final_state.data_ptr()
    parameters.grad_x, parameters.grad_x_batch, parameters.grad_x_row = grad_x.data_ptr(), *grad_x.stride()[:2]
    parameters.weight_partial = partial.data_ptr()
    if grad_initial is not None:
        parameters.grad_initial_state = grad_initial.data_ptr()
    macros = _macros(arguments, piece, (x, grad_y, grad_x))
    module = launcher.module(_SOURCE, (*macros, ("ADD", 1)) if add else macros)
    with launcher.active() as stream:
        module.launch(stream, "convolve_gradients", -(-threads // _THREADS), _THREADS, 0, parameters)
    sums = partial.sum(dim=0)
    bias = None if arguments.bias is None else sums[:, width].contiguous()
    return ConvGradients(x=grad_x, weight=sums[:, :width].contiguous(), bias=bias, initial_state=grad_initial)


def _piece(arguments: ConvArguments, held: int) -> int:
    """Channels of a thread that holds `held` numbers a tap: a power of two, up to 16 bytes; 1 where taps are many."""
    piece = 16 // arguments.x.element_size()
    while piece > 1 and held * arguments.weight.shape[1] * piece > _REGISTERS:
        piece //= 2
    return piece


def _parameters(arguments: ConvArguments, launcher: Launcher, piece: int) -> tuple[ConvParameters, int]:
    """The parameters common to both passes, and the number of threads that share the work."""
    a, x = arguments, arguments.x
    p = ConvParameters()
    for name in ("x", "weight", "bias", "initial_state", "seq_idx"):
        tensor: Tensor | None = getattr(a, name)
        setattr(p, name, None if tensor is None else tensor.data_ptr())
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


def _macros(arguments: ConvArguments, piece: int, rows: tuple[Tensor, ...]) -> tuple[tuple[str, int], ...]:
    """What the source is compiled for. `rows` are the tensors whose channels may be read a piece at a time."""
    size = piece * arguments.x.element_size()
    block_length = arguments.x.shape[2] // len(arguments.reverse)
    whole = block_length % piece == 0 and all(
        row.data_ptr() % size == 0 and all(stride % piece == 0 for stride in row.stride()[:-1]) for row in rows
    )
    return (
        ("ALIGNED", int(whole)),
        ("DTYPE", _DTYPES[arguments.x.dtype]),
        ("PACKED", int(arguments.seq_idx is not None)),
        ("PIECE", piece),
        ("SILU", int(arguments.silu)),
        ("WIDTH", arguments.weight.shape[1]),
    )
