"""Memory for results. A fresh large tensor is mapped page by page as it is first written, which for a long sequence
costs as much as the arithmetic: with 2 MiB pages, where the system grants them, that cost is gone."""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Callable

import torch
from torch import Tensor

_HUGE_PAGE = 2 << 20
_WORTH_IT = 8 << 20


def new_buffer(*shape: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised CPU tensor; a large one asks the system for huge pages (Linux; elsewhere nothing happens)."""
    tensor = torch.empty(*shape, dtype=dtype)
    size = tensor.numel() * dtype.itemsize
    if size >= _WORTH_IT:
        advise = _advise()
        if advise is not None:
            start = -(-tensor.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
            stop = (tensor.data_ptr() + size) // _HUGE_PAGE * _HUGE_PAGE
            advise(start, stop - start, mmap.MADV_HUGEPAGE)  # a wish: its refusal changes nothing but the time
    return tensor


@functools.cache
def _advise() -> Callable[[int, int, int], int] | None:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    try:
        advise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return advise
