"""Compiles a kernel once a machine, keeps it on disk, and calls it with a block of 64-bit integers."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numba import types
from torch import Tensor

from genossm_kernels._cpu import team

logger = logging.getLogger("genossm_kernels")

# Two counters lead every argument block: the next task, and the next thread's number.
COUNTERS = ("next_task", "next_thread")
_ELEMENTS = {torch.float32: np.float32(0), torch.float64: np.float64(0)}
# Below this many units of work (about a nanosecond each) waking other threads costs more than it saves.
_WORK_PER_THREAD = 20_000

BuildEntry = Callable[[Any, str], Callable[[Any], None]]


class Kernel:
    """One kernel for float32 and float64, compiled at its first use.

    fields: a NamedTuple class of integers; the kernel sees a record with the same names, after the `COUNTERS`.
    build_entry: given a number of the element type and a digest, returns the function of that record. Numba's
        cache sees neither the files that the entry calls nor their changes: the digest, which the entry closes
        over, makes it.
    """

    def __init__(self, name: str, fields: type[NamedTuple], build_entry: BuildEntry, sources: tuple[str, ...]) -> None:
        self.name = name
        self._build_entry = build_entry
        self._sources = sources
        names = (*COUNTERS, *fields._fields)
        self._record = numba.from_dtype(np.dtype([(field, np.int64) for field in names]))
        self._block = struct.Struct(f"{len(names)}q")
        self._compiled: dict[torch.dtype, Any] = {}
        self._lock = threading.Lock()
        self.compile_seconds: dict[torch.dtype, float] = {}

    def __call__(self, dtype: torch.dtype, fields: tuple[int, ...], *, tasks: int, work: int, threads: int) -> None:
        """Run `tasks` tasks, together about `work` nanoseconds, on at most `threads` threads."""
        compiled = self._compiled.get(dtype) or self.compile(dtype)
        block = ctypes.create_string_buffer(self._block.size)
        self._block.pack_into(block, 0, 0, 0, *fields)
        workers = 1 if work < 2 * _WORK_PER_THREAD else min(threads, tasks)
        team.run(compiled.ctypes, compiled.address, ctypes.addressof(block), workers)

    def compile(self, dtype: torch.dtype) -> Any:
        with self._lock:
            if dtype not in self._compiled:
                start = time.perf_counter()
                self._compiled[dtype] = self._compile(dtype)
                self.compile_seconds[dtype] = time.perf_counter() - start
                logger.debug("%s %s: ready after %.2f s", self.name, dtype, self.compile_seconds[dtype])
            return self._compiled[dtype]

    def _compile(self, dtype: torch.dtype) -> Any:
        entry = self._build_entry(_ELEMENTS[dtype], sources_digest(self._sources))
        signature = types.void(types.CPointer(self._record))
        try:
            return numba.cfunc(signature, cache=True, error_model="numpy")(entry)
        except (RuntimeError, OSError) as error:
            logger.info("%s is compiled anew in every process: no folder to keep it in (%s)", self.name, error)
            return numba.cfunc(signature, error_model="numpy")(entry)


@functools.cache
def sources_digest(sources: tuple[str, ...]) -> str:
    """One digest of the kernel's own source files and of everything in this folder."""
    digest = hashlib.sha256()
    for path in (*map(Path, sources), *sorted(Path(__file__).parent.glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def address(tensor: Tensor | None) -> int:
    """Where a tensor's first element lies; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()


def sum_in_order(parts: Tensor) -> Tensor:
    """The sum over the first dimension, one after the other: torch.sum may choose its order by thread count.

    The first part is overwritten.
    """
    result = parts[0]
    for part in parts[1:]:
        result.add_(part)
    return result
