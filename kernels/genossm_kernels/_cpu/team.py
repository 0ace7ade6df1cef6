"""Runs one kernel on several threads: PyTorch's own where we can reach them, else plain Python threads.

PyTorch's OpenMP threads spin for milliseconds after a matrix product. A second pool would fight them for the cores:
on two cores a scan behind a linear layer took as long on two pool threads as on one, and half of it on
the OpenMP team (README.md of selective_scan). Kernels share their work out by an atomic counter, so that results
depend neither on the number of threads nor on who they are.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

logger = logging.getLogger("genossm_kernels")

_forked = False
_pool: tuple[int, int, ThreadPoolExecutor] | None = None
_pool_lock = threading.Lock()


def _after_fork() -> None:
    # The child inherits neither OpenMP's threads nor the pool's, only their records: waiting for them would hang.
    global _forked, _pool, _pool_lock
    _forked = True
    _pool = None
    _pool_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def run(function: Callable[[int], object], function_address: int, argument: int, threads: int) -> None:
    """Call the kernel with `argument` on `threads` threads at once and wait for all of them."""
    if threads <= 1:
        function(argument)
        return
    start = None if _forked else _openmp_start()
    if start is not None:
        start(function_address, argument, threads, 0)
        return
    pool = _thread_pool(threads - 1)
    futures = [pool.submit(function, argument) for _ in range(threads - 1)]
    function(argument)
    for future in futures:
        future.result()


@functools.cache
def _openmp_start() -> Callable[[int, int, int, int], None] | None:
    """`GOMP_parallel` of the very library that PyTorch runs on; libgomp, LLVM's and Intel's all export it on Linux."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        # A look-up through libtorch_cpu also searches what it was linked with: never another copy of OpenMP.
        start = ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError) as error:
        logger.info("CPU kernels run on Python threads: PyTorch's OpenMP is out of reach (%s)", error)
        return None
    start.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    start.restype = None
    return start


def _thread_pool(threads: int) -> ThreadPoolExecutor:
    global _pool
    with _pool_lock:
        if _pool is None or _pool[:2] != (os.getpid(), threads):
            # A pool that is no longer wanted ends by itself once its last caller lets go of it.
            _pool = (os.getpid(), threads, ThreadPoolExecutor(threads, thread_name_prefix="genossm-kernel"))
        return _pool[2]
