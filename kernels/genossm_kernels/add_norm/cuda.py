"""The GPU back end: CUDA C++ compiled at run time (cuda_kernels.cu)."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from genossm_kernels._cuda.launch import Launcher, Module, address, launcher_for, unavailable_reason
from genossm_kernels.add_norm.contract import NormArguments, NormCall, NormGradients, NormSaved
from genossm_kernels.checks import unit_stride

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
    "partial", "sums",
)
# fmt: on
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


def forward(arguments: NormArguments) -> tuple[Tensor, Tensor]:
    """y and the stream; `residual` itself where nothing is added."""
    a, residual = arguments, _rows(arguments.residual)
    x = None if a.x is None else _rows(a.x)
    y = torch.empty(a.residual.shape, dtype=a.dtype, device=residual.device)
    stream = a.residual
    if x is not None:
        stream = torch.empty(stream.shape, dtype=stream.dtype, device=stream.device)
    p = _parameters(residual, a.weight, a.eps)
    p.bias, p.y = address(a.bias), y.data_ptr()
    if x is not None:
        p.x, p.x_row, p.stream = x.data_ptr(), x.stride(0), stream.data_ptr()
    shape, launcher = Shape.of(p.channels), launcher_for(residual.device)
    macros = _macros(shape, (x, residual, y), (), layer=a.layer, bias=a.bias is not None)
    module = launcher.module(_SOURCE, macros)
    with launcher.active() as queue:
        blocks = _blocks(module, "add_normalize", p, shape)
        module.launch(queue, "add_normalize", blocks, shape.threads, shape.shared_bytes, p)
    return y, stream


def backward(saved: NormSaved, grad_y: Tensor, grad_stream: Tensor | None) -> NormGradients:
    """All gradients, each sum in a fixed order: the same bits every time."""
    stream, gradient = _rows(saved.stream), _rows(grad_y)
    onward = None if grad_stream is None else _rows(grad_stream)
    grad_residual = torch.empty(saved.stream.shape, dtype=stream.dtype, device=stream.device)
    grad_x = None
    if saved.x_dtype not in (None, stream.dtype):
        grad_x = torch.empty(grad_residual.shape, dtype=saved.x_dtype, device=stream.device)
    p = _parameters(stream, saved.weight, saved.eps)
    p.grad_y, p.grad_y_row = gradient.data_ptr(), gradient.stride(0)
    if onward is not None:
        p.grad_stream, p.grad_stream_row = onward.data_ptr(), onward.stride(0)
    p.grad_residual, p.grad_x = grad_residual.data_ptr(), address(grad_x)
    shape, launcher = Shape.of(p.channels), launcher_for(stream.device)
    others = () if onward is None else (onward,)
    macros = _macros(shape, (grad_x, stream, gradient), others, layer=saved.layer, bias=saved.with_bias)
    sums = _launch_gradients(launcher, launcher.module(_SOURCE, macros), p, shape, 1 + saved.with_bias, stream.device)
    added = grad_residual if grad_x is None and saved.x_dtype is not None else grad_x
    return NormGradients(added, grad_residual, sums[0], sums[1] if saved.with_bias else None)


def _launch_gradients(
    launcher: Launcher, module: Module, p: NormParameters, shape: Shape, outputs: int, device: torch.device
) -> Tensor:
    """Those of rows; of weight and bias sums a block, and then over the blocks, which are returned."""
    with launcher.active() as queue:
        p.blocks = _blocks(module, "normalize_gradients", p, shape)
        partial = torch.empty(p.blocks, outputs, p.channels, dtype=torch.float32, device=device)
        sums = torch.empty(outputs, p.channels, dtype=torch.float32, device=device)
        p.partial, p.sums = partial.data_ptr(), sums.data_ptr()
        module.launch(queue, "normalize_gradients", p.blocks, shape.threads, shape.shared_bytes, p)
        columns = -(-outputs * p.channels // _SUM_LANES)
        module.launch(queue, "sum_partials", columns, _SUM_THREADS, 8 * _SUM_THREADS, p)
    return sums


def _rows(tensor: Tensor) -> Tensor:
    """(rows, channels), each row without gaps; a copy only where strides leave no other way."""
    return unit_stride(tensor.reshape(-1, tensor.shape[-1]))


def _parameters(rows: Tensor, weight: Tensor, eps: float) -> NormParameters:
    """The parameters common to both passes; the stream that is read is called the residual in both."""
    p = NormParameters()
    p.rows, p.channels = rows.shape
    p.residual, p.residual_row, p.weight, p.eps = rows.data_ptr(), rows.stride(0), weight.data_ptr(), eps
    return p


def _blocks(module: Module, kernel: str, p: NormParameters, shape: Shape) -> int:
    """As many as the device holds at once; each takes rows until there are none."""
    return max(1, min(module.resident_blocks(kernel, shape.threads, shape.shared_bytes), -(-p.rows // shape.rows)))


def _macros(
    shape: Shape, tensors: tuple[Tensor | None, Tensor, Tensor], others: tuple[Tensor, ...], *, layer: bool, bias: bool
) -> tuple[tuple[str, int], ...]:
    """What the source is compiled for. tensors: x, the stream and y, or the gradients of x and y in their places."""
    dtypes = [torch.float32 if tensor is None else tensor.dtype for tensor in tensors]
    return (
        ("ADD", int(tensors[0] is not None)),
        ("ALIGNED", int(all(_whole(tensor) for tensor in (*tensors, *others) if tensor is not None))),
        ("BIAS", int(bias)),
        ("CELLS", shape.cells),
        ("DTYPE", max(_NARROW.get(dtype, 0) for dtype in dtypes)),
        ("LANES", shape.lanes),
        ("LAYER", int(layer)),
        *((f"NARROW_{name}", int(dtype in _NARROW)) for name, dtype in zip(("X", "STREAM", "Y"), dtypes, strict=True)),
    )


def _whole(tensor: Tensor) -> bool:
    """Whether all rows can be read a cell at a time. What is new here has the shape of what is asked about."""
    rows = tensor.dim() < 2 or tensor.stride(-2) % _CELL == 0
    return rows and tensor.shape[-1] % _CELL == 0 and tensor.data_ptr() % (_CELL * tensor.element_size()) == 0


def _power_of_two(count: int) -> int:
    """The first that is not smaller."""
    return 1 << (count - 1).bit_length()
