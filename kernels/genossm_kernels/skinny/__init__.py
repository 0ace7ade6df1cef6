"""Gradients of a projection from few columns to many, on a GPU in one pass over the large tensor."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_SOURCE = Path(__file__).parent / "cuda_kernels.cu"
_DTYPES = {torch.bfloat16: 1, torch.float16: 2}
_TILE, _STEP, _PADDED, _PIECE = 64, 16, 16, 8
_MOST_WARPS = 16
FEWEST = 1 << 16  # rows: below, what a call costs on the host counts
_STAGES = 3

_POINTERS = ("grad_wide", "narrow", "weight", "grad_narrow", "partial")
_COUNTS = ("rows", "grad_wide_row", "narrow_row", "grad_narrow_row", "run")


class SkinnyParameters(ctypes.Structure):
    """`SkinnyParams` of cuda_kernels.cu: the same fields in the same order."""

    _fields_ = (*((name, ctypes.c_void_p) for name in _POINTERS), *((name, ctypes.c_int64) for name in _COUNTS))


def backward_skinny(
    backend: Any,
    grad_wide: Float[Tensor, "rows channels"],
    narrow: Float[Tensor, "rows rank"],
    weight: Float[Tensor, "channels rank"],
    grad_narrow: Float[Tensor, "rows rank"],
) -> Float[Tensor, "channels rank"]:
    """The gradients of `wide = narrow @ weight.T`: that of narrow goes into `grad_narrow`, the other is returned."""
    if not fits(backend, grad_wide, narrow, weight):
        torch.mm(grad_wide, weight, out=grad_narrow)
        return grad_wide.t() @ narrow
    channels, rank = weight.shape
    warps = channels // _TILE
    macros = (
        ("DTYPE", _DTYPES[weight.dtype]),
        ("NARROW_WHOLE", int(rank % _PIECE == 0 and _on(narrow, _PIECE))),
        ("RANK", rank),
        ("STAGES", _STAGES),
        ("WARPS", warps),
    )
    launcher = backend.launcher_for(weight.device)
    module = launcher.module(_SOURCE, macros)
    threads, shared = 32 * warps, _shared_bytes(warps)
    p = SkinnyParameters()
    p.rows = len(grad_wide)
    p.run = -(-p.rows // module.resident_blocks("pass_back_skinny", threads, shared))
    p.run += -p.run % _STEP
    blocks = -(-p.rows // p.run)
    partial = weight.new_empty((blocks, channels, rank), dtype=torch.float32)
    p.grad_wide, p.narrow, p.weight = grad_wide.data_ptr(), narrow.data_ptr(), weight.data_ptr()
    p.grad_narrow, p.partial = grad_narrow.data_ptr(), partial.data_ptr()
    p.grad_wide_row, p.narrow_row, p.grad_narrow_row = grad_wide.stride(0), narrow.stride(0), grad_narrow.stride(0)
    with launcher.active() as stream:
        module.launch(stream, "pass_back_skinny", blocks, threads, shared, p)
    return partial.sum(dim=0).to(weight.dtype)


def fits(backend: Any, grad_wide: Tensor, narrow: Tensor, weight: Tensor) -> bool:
    """Whether the kernel takes these; else there are two matrix products."""
    if not hasattr(backend, "launcher_for") or weight.dtype not in _DTYPES or len(grad_wide) < FEWEST:
        return False
    channels, rank = weight.shape
    sizes = channels % _TILE == 0 and channels // _TILE <= _MOST_WARPS and rank % 4 == 0 and rank <= _PADDED
    rows = _on(grad_wide, _PIECE) and _on(narrow, 4)
    if not sizes or _shared_bytes(channels // _TILE) > backend.launcher_for(weight.device).shared_bytes_per_block:
        return False
    return rows and weight.is_contiguous() and grad_wide.dtype == narrow.dtype == weight.dtype


def _shared_bytes(warps: int) -> int:
    """As cuda_kernels.cu lays it out."""
    stage = _STEP * (_TILE + 8 + _PADDED + 8)
    return warps * (4 * 2 * _STEP * _PADDED + 2 * _STAGES * stage)


def _on(rows: Tensor, elements: int) -> bool:
    """Whether every row begins on a multiple of so many elements."""
    size = elements * rows.element_size()
    return rows.data_ptr() % size == 0 and rows.stride(0) % elements == 0 and rows.stride(1) == 1
