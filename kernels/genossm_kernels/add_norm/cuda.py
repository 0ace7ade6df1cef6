"""The GPU back end: CUDA C++ compiled at run time (cuda_kernels.cu)."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genossm_kernels._cuda.launch import Launcher, Module, address, launcher_for, unavailable_reason
from genossm_kernels._cuda.program import Layout, Program
from genossm_kernels.add_norm.contract import (
    NormArguments,
    NormCall,
    NormGradients,
    NormSaved,
    in_rows,
    kind_of,
    row_stride,
)
from genossm_kernels.kinds import Kinds, traits

_SOURCE = Path(__file__).parent / "cuda_kernels.cu"
_NARROW = {torch.bfloat16: 1, torch.float16: 2}
_CELL = 4  # channels a thread reads at once
_CELLS = 4  # that a thread holds at most
_WARP, _LARGEST_BLOCK, _BLOCK = 32, 1024, 256
_WIDEST = _LARGEST_BLOCK * _CELLS * _CELL
_SCRATCH_BYTES = 2 * (_LARGEST_BLOCK // _WARP) * 3 * 4
_SUM_LANES, _SUM_THREADS = 32, 256

# fmt: off
_POINTERS = (
    "x", "residual", "grad_y", "grad_stream", "weight", "bias", "y", "stream", "grad_x", "grad_residual",
    "partial", "grad_weight", "grad_bias",
)
# fmt: on
_kinds_of_gradients = Kinds()
_STRIDES = ("rows", "x_row", "residual_row", "grad_y_row", "grad_stream_row")


class NormParameters(ctypes.Structure):
    """`NormParams` of cuda_kernels.cu: the same fields in the same order."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in _STRIDES),
        ("channels", ctypes.c_int32),
        ("blocks", ctypes.c_int32),
        ("eps", ctypes.c_float),
    )


class Shape(NamedTuple):
    """How rows are shared out: `lanes` threads with `cells` cells each have one."""

    lanes: int
    cells: int

    @classmethod
    def of(cls, channels: int) -> Shape:
        wanted = -(-channels // _CELL)
        lanes = min(_WARP, _power_of_two(wanted))
        if wanted > lanes * _CELLS:
            lanes = _power_of_two(-(-wanted // _CELLS))
        return cls(lanes, -(-wanted // lanes))

    @property
    def threads(self) -> int:
        return _BLOCK if self.lanes <= _WARP else self.lanes

    @property
    def rows(self) -> int:
        """Rows a block has in hand."""
        return self.threads // self.lanes

    @property
    def shared_bytes(self) -> int:
        """For sums over warps that share a row, or over the rows of a block."""
        return _SCRATCH_BYTES if self.lanes > _WARP else self.threads * self.cells * _CELL * 4


def unavailable(call: NormCall) -> str | None:
    """None if this device and such arguments are within what the kernels do."""
    strange = [dtype for dtype in call.dtypes if dtype != torch.float32 and dtype not in _NARROW]
    if strange:
        return f"it takes float32, bfloat16 and float16, not {strange[0]}"
    if len({*call.dtypes} - {torch.float32}) > 1:
        return "it takes one of bfloat16 and float16, not both at once"
    if call.channels > _WIDEST:
        return f"it takes up to {_WIDEST} channels, not {call.channels}"
    return unavailable_reason(call.device)


class _Forward(NamedTuple):
    """What calls of one kind share."""

    program: Program
    y: Layout
    stream: Layout | None


class _Backward(NamedTuple):
    """The same of the backward pass."""

    program: Program
    residual: Layout
    x: Layout | None
    parameter: Layout
    partial: Layout


def forward(arguments: NormArguments) -> tuple[Tensor, Tensor]:
    """y and the stream; `residual` itself where nothing is added."""
    launcher = launcher_for(arguments.residual.device)
    return launcher.run(_forward, launcher, arguments)


def _forward(queue: Any, launcher: Launcher, a: NormArguments) -> tuple[Tensor, Tensor]:
    x, residual = address(a.x), a.residual.data_ptr()
    prepared, key = (a.kind or kind_of(a)).prepared, (launcher, (x | residual) % 16)
    call = prepared.get(key)
    if call is None:
        call = prepared[key] = _prepare_forward(launcher, a, x | residual)
    y = launcher.empty(call.y)
    stream = None if call.stream is None else launcher.empty(call.stream)
    call.program.run(queue, x, residual, a.weight.data_ptr(), address(a.bias), y.data_ptr(), address(stream))
    return y, a.residual if stream is None else stream


def backward(saved: NormSaved, grad_y: Tensor, grad_stream: Tensor | None) -> NormGradients:
    """All gradients, each sum in a fixed order: the same bits every time."""
    launcher = launcher_for(saved.stream.device)
    onward = None if grad_stream is None else in_rows(grad_stream)
    return launcher.run(_backward, launcher, saved, in_rows(grad_y), onward)


def _backward(queue: Any, launcher: Launcher, saved: NormSaved, grad_y: Tensor, onward: Tensor | None) -> NormGradients:
    stream, gradient, beside = saved.stream.data_ptr(), grad_y.data_ptr(), address(onward)
    start, options = (stream | gradient | beside) % 16, (saved.with_bias, saved.layer, saved.eps, saved.x_dtype)
    key = (launcher, start, traits(saved.stream), traits(grad_y), traits(onward), options)
    prepared = _kinds_of_gradients.of(key).prepared
    call = prepared.get(None)
    if call is None:
        call = prepared[None] = _prepare_backward(launcher, saved, grad_y, onward, start)
    residual, weight, partial = (
        launcher.empty(call.residual),
        launcher.empty(call.parameter),
        launcher.empty(call.partial),
    )
    x = None if call.x is None else launcher.empty(call.x)
    bias = launcher.empty(call.parameter) if saved.with_bias else None
    call.program.run(
        queue,
        *(stream, gradient, beside, saved.weight.data_ptr(), address(x), residual.data_ptr()),
        *(partial.data_ptr(), weight.data_ptr(), address(bias)),
    )
    return NormGradients(residual if x is None and saved.x_dtype is not None else x, residual, weight, bias)


def _prepare_forward(launcher: Launcher, a: NormArguments, start: int) -> _Forward:
    """start: addresses of rows, or-ed."""
    p, shape = _parameters(a.residual, a.eps)
    p.x_row = 0 if a.x is None else _step(a.x)
    x_dtype = None if a.x is None else a.x.dtype
    dtypes = (x_dtype, a.residual.dtype, a.dtype)
    macros = _macros(shape, dtypes, _aligned(start, a.residual, a.x), layer=a.layer, bias=a.bias is not None)
    module = launcher.module(_SOURCE, macros)
    blocks = _blocks(module, "add_normalize", p, shape)
    launch = module.bind("add_normalize", blocks, shape.threads, shape.shared_bytes, ctypes.sizeof(p))
    program = Program([launch], p, ("x", "residual", "weight", "bias", "y", "stream"))
    stream = None if a.x is None else Layout.of(a.residual.shape, a.residual.dtype)
    return _Forward(program, Layout.of(a.residual.shape, a.dtype), stream)


def _prepare_backward(
    launcher: Launcher, saved: NormSaved, grad_y: Tensor, onward: Tensor | None, start: int
) -> _Backward:
    """start: addresses of rows, or-ed."""
    stream, outputs = saved.stream, 1 + saved.with_bias
    p, shape = _parameters(stream, saved.eps)
    p.grad_y_row, p.grad_stream_row = _step(grad_y), 0 if onward is None else _step(onward)
    # Where x has the stream's dtype, it has the stream's gradient.
    x_dtype = None if saved.x_dtype == stream.dtype else saved.x_dtype
    aligned = _aligned(start, stream, grad_y, onward)
    macros = _macros(shape, (x_dtype, stream.dtype, grad_y.dtype), aligned, layer=saved.layer, bias=saved.with_bias)
    module, size = launcher.module(_SOURCE, macros), ctypes.sizeof(p)
    p.blocks = _blocks(module, "normalize_gradients", p, shape)
    columns = -(-outputs * p.channels // _SUM_LANES)
    launches = [
        module.bind("normalize_gradients", p.blocks, shape.threads, shape.shared_bytes, size),
        module.bind("sum_partials", columns, _SUM_THREADS, 8 * _SUM_THREADS, size),
    ]
    addresses = (
        *("residual", "grad_y", "grad_stream", "weight", "grad_x", "grad_residual"),
        *("partial", "grad_weight", "grad_bias"),
    )
    return _Backward(
        program=Program(launches, p, addresses),
        residual=Layout.of(stream.shape, stream.dtype),
        x=None if x_dtype is None else Layout.of(stream.shape, x_dtype),
        parameter=Layout.of((p.channels,), torch.float32),
        partial=Layout.of((p.blocks, outputs, p.channels), torch.float32),
    )


def _parameters(stream: Tensor, eps: float) -> tuple[NormParameters, Shape]:
    """What both passes have in common; the stream that is read is called the residual in both."""
    p = NormParameters()
    p.channels, p.eps = stream.shape[-1], eps
    p.rows, p.residual_row = stream.numel() // p.channels, _step(stream)
    return p, Shape.of(p.channels)


def _step(tensor: Tensor) -> int:
    step = row_stride(tensor)
    assert step is not None, "the public function and `backward` see to it"
    return step


def _blocks(module: Module, kernel: str, p: NormParameters, shape: Shape) -> int:
    """As many as the device holds at once; each takes rows until there are none."""
    return max(1, min(module.resident_blocks(kernel, shape.threads, shape.shared_bytes), -(-p.rows // shape.rows)))


def _aligned(start: int, *rows: Tensor | None) -> bool:
    """Whether all rows, and what is new here and contiguous, can be read a cell at a time."""
    given = [tensor for tensor in rows if tensor is not None]
    return start % 16 == 0 and all(number % _CELL == 0 for row in given for number in (row.shape[-1], _step(row)))


def _macros(
    shape: Shape, dtypes: tuple[torch.dtype | None, torch.dtype, torch.dtype], aligned: bool, *, layer: bool, bias: bool
) -> tuple[tuple[str, int], ...]:
    """What the source is compiled for. dtypes: of x, the stream and y; None for an x that is not there."""
    return (
        ("ADD", int(dtypes[0] is not None)),
        ("ALIGNED", int(aligned)),
        ("BIAS", int(bias)),
        ("CELLS", shape.cells),
        ("DTYPE", max(_NARROW.get(dtype, 0) for dtype in dtypes if dtype is not None)),
        ("LANES", shape.lanes),
        ("LAYER", int(layer)),
        *((f"NARROW_{name}", int(dtype in _NARROW)) for name, dtype in zip(("X", "STREAM", "Y"), dtypes, strict=True)),
    )


def _power_of_two(count: int) -> int:
    """The first that is not smaller."""
    return 1 << (count - 1).bit_length()
