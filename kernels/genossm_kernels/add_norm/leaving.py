"""A projection, its addition to the residual stream and the norm of the sum in one launch on a GPU; no gradients."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genossm_kernels._cuda.launch import address
from genossm_kernels.add_norm.contract import row_stride

_SOURCE = Path(__file__).parent / "cuda_leaving.cu"
_DTYPES = {torch.bfloat16: 1, torch.float16: 2}
_IDS = {torch.int32: 1, torch.int64: 2}
_COLUMNS, _STEP, _PIECE = 32, 16, 8  # of a warp; of a product; of 16 bytes
_MOST_WARPS, _MOST_KEPT, _TILE, _STAGES = 8, 16, 32, 3

_POINTERS = ("y", "matrix", "residual", "weight", "ids", "stream", "hidden")


class LeavingParameters(ctypes.Structure):
    """`LeavingParams` of cuda_leaving.cu: the same fields in the same order."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in ("rows", "y_row", "residual_row")),
        ("eps", ctypes.c_float),
        ("tiles", ctypes.c_int32),
    )


@dataclass(frozen=True, eq=False)
class Leaving:
    """stream = residual + y matrixᵀ, and hidden = stream / sqrt(mean(stream²) + eps) · weight in `dtype`.

    ids: residual is a table, of which each position has the row that its id names; ids are taken as they are.
    """

    y: Float[Tensor, "*rows inner"]
    matrix: Float[Tensor, "channels inner"]
    residual: Float[Tensor, "*rows channels"]
    ids: Int[Tensor, "*rows"] | None
    weight: Float[Tensor, " channels"]
    eps: float
    dtype: torch.dtype


class _Shape(NamedTuple):
    """How work is shared out; `kept`: steps of a product whose matrix is in registers."""

    warps: int
    blocks: int
    kept: int
    shared_bytes: int

    @classmethod
    def of(cls, a: Leaving) -> _Shape:
        (channels, inner), tile = a.matrix.shape, _TILE
        warps, steps = channels // _COLUMNS, inner // _STEP
        kept = min(steps, _MOST_KEPT)
        matrix, sums, rows = warps * (steps - kept) * 1024, 4 * tile * warps, 2 * _STAGES * tile * (inner + _PIECE)
        return cls(warps, max(1, _MOST_WARPS // max(1, warps)), kept, matrix + sums + rows)


def takes(backend: Any, a: Leaving) -> bool:
    """Whether `forward_leaving` is for these."""
    if not hasattr(backend, "launcher_for") or a.y.dtype not in _DTYPES or a.matrix.dtype != a.y.dtype:
        return False
    (channels, inner), shape = a.matrix.shape, _Shape.of(a)
    if channels % _COLUMNS or inner % _STEP or shape.warps > _MOST_WARPS or a.residual.dtype != torch.float32:
        return False
    if a.dtype not in (a.y.dtype, torch.float32) or (a.ids is not None and a.ids.dtype not in _IDS):
        return False
    dense = (a.matrix, a.residual, a.weight) if a.ids is None else (a.matrix, a.residual, a.weight, a.ids)
    step = row_stride(a.y)
    if step is None or step % _PIECE or not all(tensor.is_contiguous() for tensor in dense):
        return False
    if any(tensor.data_ptr() % 16 for tensor in (a.y, *dense)):
        return False
    return shape.shared_bytes <= backend.launcher_for(a.y.device).shared_bytes_per_block


def forward_leaving(backend: Any, a: Leaving, *, keep: bool) -> tuple[Tensor, Tensor | None]:
    """hidden, and the stream if it is to be kept."""
    launcher, shape, (channels, inner) = backend.launcher_for(a.y.device), _Shape.of(a), a.matrix.shape
    rows, tile = a.y.shape[:-1], _TILE
    macros = (
        ("BLOCKS", shape.blocks),
        ("COLUMNS", channels),
        ("DTYPE", _DTYPES[a.y.dtype]),
        ("IDS", 0 if a.ids is None else _IDS[a.ids.dtype]),
        ("INNER", inner),
        ("KEEP", int(keep)),
        ("KEPT", shape.kept),
        ("STAGES", _STAGES),
        ("WIDE", int(a.dtype == torch.float32)),
    )
    module = launcher.module(_SOURCE, macros)
    hidden = a.y.new_empty((*rows, channels), dtype=a.dtype)
    stream = a.y.new_empty((*rows, channels), dtype=torch.float32) if keep else None
    p = LeavingParameters()
    p.y, p.matrix, p.residual, p.weight = (t.data_ptr() for t in (a.y, a.matrix, a.residual, a.weight))
    p.ids, p.stream, p.hidden = address(a.ids), address(stream), hidden.data_ptr()
    p.rows, p.y_row, p.residual_row, p.eps = rows.numel(), row_stride(a.y) or 0, channels, a.eps
    p.tiles = -(-p.rows // tile)
    threads = 32 * shape.warps
    blocks = min(p.tiles, module.resident_blocks("leave_and_normalize", threads, shape.shared_bytes))
    with launcher.active() as queue:
        module.launch(queue, "leave_and_normalize", blocks, threads, shape.shared_bytes, p)
    return hidden, stream
