"""Runs the kernels' own source on the CPU, for tests: compiled by g++, a fiber a CUDA thread (emulation.h)."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch

from genossm_kernels._cuda.cache import cache_key
from genossm_kernels._cuda.program import Launch, Layout
from genossm_kernels._cuda.source import read_source

_Result = TypeVar("_Result")
_HEADER = Path(__file__).parent / "emulation.h"
_FLAGS = ("-std=c++17", "-O1", "-shared", "-fPIC", "-w", "-ffp-contract=off", "-fno-gnu-unique")


class EmulatedModule:
    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def launch(
        self,
        stream: None,
        kernel: str,
        blocks: int,
        threads: int,
        shared_bytes: int,
        parameters: ctypes.Structure,
    ) -> None:
        pointer = ctypes.c_void_p(ctypes.addressof(parameters))
        launch = self.bind(kernel, blocks, threads, shared_bytes, ctypes.sizeof(parameters))
        launch(stream, ctypes.addressof(pointer))

    def bind(self, kernel: str, blocks: int, threads: int, shared_bytes: int, parameter_bytes: int) -> Launch:
        size = getattr(self._library, f"parameter_bytes_{kernel}")
        size.restype = ctypes.c_size_t
        expected = size()
        if expected != parameter_bytes:
            raise TypeError(f"{kernel} takes {expected} bytes of parameters, got {parameter_bytes}")
        run = getattr(self._library, f"emulate_{kernel}")
        run.argtypes = [ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_size_t]

        def launch(stream: None, parameters: int) -> None:  # noqa: ARG001
            run(ctypes.c_void_p.from_address(parameters), blocks, 1, threads, shared_bytes)

        return launch

    def resident_blocks(self, kernel: str, threads: int, shared_bytes: int) -> int:  # noqa: ARG002
        return 3  # few and odd, so that a block takes several pieces of work


class Emulator:
    """Stands in for a GPU with two multiprocessors."""

    multiprocessors = 2
    shared_bytes_per_block = 227 * 1024
    clusters = True

    def __init__(self, directory: Path) -> None:
        """`directory` keeps what is compiled."""
        self._directory = directory

    def module(self, path: Path, macros: tuple[tuple[str, int], ...]) -> EmulatedModule:
        return _build(read_source(path), macros, self._directory)

    def active(self) -> AbstractContextManager[None]:
        return nullcontext()

    def run(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        return function(None, *arguments)

    def empty(self, layout: Layout) -> torch.Tensor:
        return torch.empty(layout.shape, dtype=layout.dtype)


@functools.cache
def _build(text: str, macros: tuple[tuple[str, int], ...], directory: Path) -> EmulatedModule:
    compiler = shutil.which("g++")
    if compiler is None:
        raise FileNotFoundError("g++ is not installed; the emulation of the CUDA kernels needs it (apt install g++)")
    defines = [f"-D{name}={value}" for name, value in macros]
    source = f'#include "{_HEADER}"\n{text}'
    name = cache_key(source, _HEADER.read_text(), *_FLAGS, *defines)
    library = directory / f"{name}.so"
    if not library.exists():
        written = directory / f"{name}.cpp"
        written.write_text(source)
        subprocess.run(
            [compiler, *_FLAGS, *defines, str(written), "-o", str(library)], check=True, capture_output=True, text=True
        )
    return EmulatedModule(ctypes.CDLL(str(library)))
