"""Runs the kernels' own source on the CPU, for tests: compiled by g++, a fiber a CUDA thread (emulation.h)."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from genossm_kernels._cuda.cache import cache_key
from genossm_kernels._cuda.source import read_source

_HEADER = Path(__file__).parent / "emulation.h"
_FLAGS = ("-std=c++17", "-O1", "-shared", "-fPIC", "-w", "-ffp-contract=off", "-fno-gnu-unique")


class EmulatedModule:
    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def launch(
        self,
        stream: None,  # noqa: ARG002
        kernel: str,
        blocks: int,
        threads: int,
        shared_bytes: int,
        parameters: ctypes.Structure,
    ) -> None:
        size = getattr(self._library, f"parameter_bytes_{kernel}")
        size.restype = ctypes.c_size_t
        expected = size()
        if expected != ctypes.sizeof(parameters):
            raise TypeError(f"{kernel} takes {expected} bytes of parameters, got {ctypes.sizeof(parameters)}")
        run = getattr(self._library, f"emulate_{kernel}")
        run.argtypes = [ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_size_t]
        run(ctypes.addressof(parameters), blocks, 1, threads, shared_bytes)

    def resident_blocks(self, kernel: str, threads: int, shared_bytes: int) -> int:  # noqa: ARG002
        return 3  # few and odd, so that a block takes several pieces of work


class Emulator:
    """Stands in for a GPU with two multiprocessors."""

    multiprocessors = 2
    shared_bytes_per_block = 227 * 1024

    def __init__(self, directory: Path) -> None:
        """`directory` keeps what is compiled."""
        self._directory = directory

    def module(self, path: Path, macros: tuple[tuple[str, int], ...]) -> EmulatedModule:
        return _build(read_source(path), macros, self._directory)

    def active(self) -> AbstractContextManager[None]:
        return nullcontext()


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
