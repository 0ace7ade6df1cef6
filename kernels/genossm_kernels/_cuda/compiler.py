"""CUDA C++ to machine code through NVRTC (cuda-core), remembered on disk."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from genossm_kernels._cuda import cache
from genossm_kernels._cuda.source import read_source

STANDARD = "c++17"

logger = logging.getLogger("genossm_kernels")


PACKAGES = {"cuda.core": "cuda-core", "cuda.bindings": "cuda-bindings"}


@functools.cache
def missing_package() -> str | None:
    """The first package that compilation needs and that is not installed."""
    for module, package in PACKAGES.items():
        try:
            if importlib.util.find_spec(module) is None:
                return package
        except ModuleNotFoundError:
            return package
    return None


def installed() -> bool:
    return missing_package() is None


def compiler_version() -> str:
    """The version of the NVRTC that would compile; part of every cache key."""
    status, major, minor = importlib.import_module("cuda.bindings.nvrtc").nvrtcVersion()
    if int(status) != 0:
        raise RuntimeError(f"NVRTC does not tell its version: {status}")
    return f"{major}.{minor}"


@functools.cache
def unusable_reason(capability: tuple[int, int], driver_version: int) -> str | None:
    """None if what NVRTC compiles for `capability` runs under a driver for CUDA `driver_version` (13000 for 13.0)."""
    missing = missing_package()
    if missing is not None:
        return f"the package {missing!r} is not installed"
    try:
        version = compiler_version()
        status, architectures = importlib.import_module("cuda.bindings.nvrtc").nvrtcGetSupportedArchs()
    except Exception as error:  # what a missing shared library raises differs between releases
        return f"NVRTC cannot be loaded ({error}); install the package 'nvidia-cuda-nvrtc'"
    major = int(version.split(".")[0])
    if driver_version // 1000 < major:
        return (
            f"the driver supports CUDA {driver_version // 1000} and NVRTC is {version}; "
            f"update the driver or install cuda-core[cu{driver_version // 1000}]"
        )
    if int(status) == 0 and 10 * capability[0] + capability[1] not in architectures:
        return f"NVRTC {version} does not know compute capability {capability[0]}.{capability[1]}; update it"
    return None


def compile_kernels(path: Path, macros: Mapping[str, int], architecture: str) -> bytes:
    """Machine code (a cubin) of one source file for one architecture such as "sm_90"; from the cache if it is there.

    Raises whatever cuda-core raises, with NVRTC's log, where the source does not compile.
    """
    defines = tuple(f"{name}={value}" for name, value in sorted(macros.items()))
    key = cache.cache_key(read_source(path), architecture, STANDARD, *defines, compiler_version())
    cubin = cache.load(key)
    if cubin is None:
        started = time.perf_counter()
        cubin = compile_uncached(path, macros, architecture)
        logger.info("compiled %s for %s in %.1f s", path.name, architecture, time.perf_counter() - started)
        cache.store(key, cubin)
    return cubin


def compile_uncached(path: Path, macros: Mapping[str, int], architecture: str) -> bytes:
    core = importlib.import_module("cuda.core")
    options = core.ProgramOptions(
        name=path.name,
        arch=architecture,
        std=STANDARD,
        define_macro=[(name, str(value)) for name, value in sorted(macros.items())],
    )
    program = core.Program(read_source(path), "c++", options)
    try:
        code = program.compile("cubin").code
    finally:
        program.close()
    assert isinstance(code, bytes)
    return code
