"""Rows of a table by ids, on a GPU at the speed at which they can be written."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from genossm_kernels._cuda.launch import launcher_for, unavailable_reason
from genossm_kernels.operators import intercepted

_SOURCE = Path(__file__).parent / "cuda_kernels.cu"
_IDS = {torch.int32: 1, torch.int64: 2}
_THREADS, _PIECE, _BATCH = 256, 16, 4
_WIDEST = 1024  # bytes of a row: wider ones PyTorch writes as fast
FEWEST = 1 << 15  # ids: below, what a call costs on the host counts


class LookUpParameters(ctypes.Structure):
    """`LookUpParams` of cuda_kernels.cu: the same fields in the same order."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("table", "ids", "rows")),
        *((name, ctypes.c_int64) for name in ("size", "count", "run")),
    )


def take_rows(table: Float[Tensor, "vocab channels"], ids: Int[Tensor, "*any"]) -> Float[Tensor, "*any channels"]:
    """`table[ids]`, without a gradient; for few ids, elsewhere, and where somebody watches, PyTorch's own.

    An id outside the table is an error of the device, as PyTorch's is.
    """
    if not takes(table, ids):
        return F.embedding(ids, table)
    launcher, pieces = launcher_for(table.device), table.shape[1] * table.element_size() // _PIECE
    rows = table.new_empty((*ids.shape, table.shape[1]))
    macros = (("BATCH", _BATCH), ("DTYPE", 0), ("IDS", _IDS[ids.dtype]), ("PIECES", pieces))
    module = launcher.module(_SOURCE, macros)
    p = LookUpParameters(table.data_ptr(), ids.data_ptr(), rows.data_ptr(), len(table), ids.numel())
    p.run = -(-p.count // module.resident_blocks("take_rows", _THREADS, 0))
    with launcher.active() as stream:
        module.launch(stream, "take_rows", -(-p.count // p.run), _THREADS, 0, p)
    return rows


def takes(table: Tensor, ids: Tensor) -> bool:
    """Whether the kernel is for these."""
    if ids.numel() < FEWEST or ids.dtype not in _IDS or intercepted(table) or unavailable_reason(table.device):
        return False
    size = table.shape[1] * table.element_size()
    whole = size % _PIECE == 0 and size <= _WIDEST and table.data_ptr() % _PIECE == 0
    return whole and table.is_contiguous() and ids.is_contiguous() and ids.device == table.device
