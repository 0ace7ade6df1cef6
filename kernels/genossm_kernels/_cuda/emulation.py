"""Runs the kernels' own source on the CPU, for tests: compiled by g++, a fiber a CUDA thread (emulation.h)."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from genossm_kernels._cuda.cache import cache_directory, cache_key
from genossm_kernels._cuda.source import read_source

_HEADER = Path(__file__).parent / "emulation.h"
_FLAGS = ("-std=c++17", "-O1", "-shared", "-fPIC", "-w", "-ffp-contract=off", "-fno-gnu-unique")


class EmulatedModule:
    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def launch(self, kernel: str, blocks: int, threads: int, shared_bytes: int, parameters: ctypes.Structure) -> None:
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

    def module(self, path: Path, macros: Mapping[str, int]) -> EmulatedModule:
        return _build(path, tuple(sorted(macros.items())))


@functools.cache
def _build(path: Path, macros: tuple[tuple[str, int], ...]) -> EmulatedModule:
    compiler = shutil.which("g++")
    if compiler is None:
        raise FileNotFoundError("g++ is not installed; the emulation of the CUDA kernels needs it (apt install g++)")
    defines = [f"-D{name}={value}" for name, value in macros]
    source = f'#include "{_HEADER}"\n{read_source(path)}'
    key = cache_key(source, _HEADER.read_text(), *_FLAGS, *defines)
    library = cache_directory() / f"emulation-{key}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as directory:
            text = Path(directory) / "kernel.cpp"
            text.write_text(source)
            built = Path(directory) / "kernel.so"
            subprocess.run(
                [compiler, *_FLAGS, *defines, str(text), "-o", str(built)], check=True, capture_output=True, text=True
            )
            built.replace(library)
    return EmulatedModule(ctypes.CDLL(str(library)))
