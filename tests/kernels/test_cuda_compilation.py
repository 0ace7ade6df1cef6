"""What users' machines do at the first call, as far as it goes without a GPU: NVRTC, and the cache on disk."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from genossm_kernels import skinny
from genossm_kernels._cuda import cache, compiler
from genossm_kernels.add_norm import cuda as norm_backend
from genossm_kernels.causal_conv1d import both as conv_both
from genossm_kernels.causal_conv1d import cuda_plan as conv_plan
from genossm_kernels.causal_conv1d import projected, projecting
from genossm_kernels.selective_scan import cuda_plan as scan_plan
from genossm_kernels.selective_scan import cuda_turns

SCAN_MACROS = {"DTYPE": 1, "SOFTPLUS": 1, "GATE": 1, "PACKED": 1, "PADDED_STATE": 16, "ALIGNED": 1, "ALIGNED_MAPS": 1}
SEGMENT_MACROS = SCAN_MACROS | {"SEGMENT_WARPS": 4, "SEGMENT_BLOCKS": 3}
TURNS = {"CLUSTER": 1, "STEPS": 16, "TILE_CHANNELS": 8, "WARPS": 8}
CONVOLUTION = {"DTYPE": 1, "SILU": 1, "ALIGNED": 1}
WARPS = {"DTYPE": 1, "SILU": 1, "WARPS": 4, "STAGES": 2, "BLOCKS": 2}
TOGETHER = {"DTYPE": 1, "WIDTH": 2, "FIRST": 1, "SECOND": 1, "LOW": 20, "GROUP": 4}
NORM = {"DTYPE": 1, "NARROW_X": 1, "NARROW_STREAM": 0, "NARROW_Y": 1, "ADD": 1, "LAYER": 1, "BIAS": 1, "ALIGNED": 1}
SOURCES = {
    "scan_forward": (scan_plan._FORWARD, SEGMENT_MACROS),
    "scan_forward_adding": (scan_plan._FORWARD, SEGMENT_MACROS | {"ADD_Y": 1}),
    "scan_in_turns": (scan_plan._CHAIN, SCAN_MACROS | TURNS),
    "scan_in_turns_adding": (scan_plan._CHAIN, SCAN_MACROS | TURNS | {"DTYPE": 0, "ALIGNED": 0, "ADD_Y": 1}),
    "scan_adjoints": (scan_plan._ADJOINTS, SEGMENT_MACROS),
    "scan_backward": (scan_plan._BACKWARD, SCAN_MACROS | {"BACKWARD_WARPS": 4, "BACKWARD_BLOCKS": 3}),
    "convolution": (conv_plan.NARROW, CONVOLUTION | {"WIDTH": 4, "PIECE": 4, "PACKED": 0}),
    "convolution_adding": (conv_plan.NARROW, CONVOLUTION | {"WIDTH": 4, "PIECE": 4, "PACKED": 0, "ADD": 1}),
    "both_convolutions": (conv_both._SOURCE, {"DTYPE": 1, "ALIGNED": 1, "WIDTH": 4, "PIECE": 2}),
    "many_taps_by_threads": (conv_plan.NARROW, CONVOLUTION | {"WIDTH": 24, "PIECE": 1, "PACKED": 1}),
    "many_taps": (conv_plan.WIDE, WARPS | {"WIDTH": 16, "PIECE": 2, "ADD": 1}),
    "many_taps_both_ways": (conv_both._MANY, WARPS | {"WIDTH": 16, "PIECE": 1}),
    "many_taps_of_floats": (conv_plan.WIDE, WARPS | {"WIDTH": 32, "PIECE": 1, "DTYPE": 0}),
    "projecting": (projecting._SOURCE, TOGETHER | {"WARPS": 2, "STAGES": 2, "BLOCKS": 1, "RANK": 16}),
    "projected": (projected._SOURCE, TOGETHER | {"ADD": 0, "BLOCKS": 2}),
    "skinny": (skinny._SOURCE, {"DTYPE": 2, "WARPS": 2, "RANK": 8, "NARROW_WHOLE": 1, "STAGES": 2}),
    "norm": (norm_backend._SOURCE, NORM | {"LANES": 64, "CELLS": 2}),
}
needs_compiler = pytest.mark.skipif(
    not compiler.installed(), reason="genossm[cuda] is not installed: there is no NVRTC to compile with"
)


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENOSSM_KERNEL_CACHE", str(tmp_path))
    return tmp_path


@needs_compiler
@pytest.mark.parametrize("architecture", ["sm_80", "sm_89", "sm_90", "sm_100"])
@pytest.mark.parametrize("name", SOURCES)
def test_compiles_without_a_gpu(name: str, architecture: str) -> None:
    path, macros = SOURCES[name]
    cubin = compiler.compile_uncached(path, macros, architecture)
    assert cubin.startswith(b"\x7fELF")


@needs_compiler
@pytest.mark.parametrize("turns", cuda_turns.TIMES, ids=str)
def test_all_shapes_of_turns_compile_where_there_are_clusters(turns: cuda_turns.Turns) -> None:
    chain = cuda_turns.chain_of(turns, item_size=2, padded_state=16, runs=1, run_length=256)
    architecture = "sm_100" if turns.warps == 12 else "sm_90"
    cubin = compiler.compile_uncached(scan_plan._CHAIN, SCAN_MACROS | dict(chain.macros), architecture)
    assert cubin.startswith(b"\x7fELF")


@needs_compiler
def test_second_compilation_is_read_from_disk_and_a_damaged_file_is_not(
    cache_of_its_own: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def counted(path: Path, macros: dict[str, int], architecture: str) -> bytes:
        calls.append((path, dict(macros), architecture))
        return b"machine code %d" % len(calls)

    monkeypatch.setattr(compiler, "compile_uncached", counted)
    path, macros = SOURCES["convolution"]
    first = compiler.compile_kernels(path, macros, "sm_90")
    assert compiler.compile_kernels(path, macros, "sm_90") == first
    assert len(calls) == 1
    compiler.compile_kernels(path, macros, "sm_80")
    compiler.compile_kernels(path, macros | {"WIDTH": 3}, "sm_90")
    monkeypatch.setattr(compiler, "compiler_version", lambda: "0.0")
    compiler.compile_kernels(path, macros, "sm_90")
    assert len(calls) == 4
    assert not [file for file in cache_of_its_own.iterdir() if file.suffix != ".cubin"]

    for file in cache_of_its_own.iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert compiler.compile_kernels(path, macros, "sm_90") == b"machine code 5"
    assert "damaged" in caplog.text
    assert compiler.compile_kernels(path, macros, "sm_90") == b"machine code 5"
    assert len(calls) == 5


def test_a_directory_that_cannot_be_written_costs_no_run(
    cache_of_its_own: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    occupied = cache_of_its_own / "file"
    occupied.write_text("in the way")
    monkeypatch.setenv("GENOSSM_KERNEL_CACHE", str(occupied))
    with caplog.at_level(logging.WARNING):
        cache.store("key", b"machine code")
    assert "not kept" in caplog.text
    assert cache.load("key") is None


def test_keys_separate_their_parts() -> None:
    assert cache.cache_key("ab", "c") != cache.cache_key("a", "bc")


@needs_compiler
def test_a_compiler_that_the_machine_cannot_use_is_refused_with_the_way_out() -> None:
    major = int(compiler.compiler_version().split(".")[0])
    assert compiler.unusable_reason((9, 0), 1000 * major) is None
    older = compiler.unusable_reason((9, 0), 1000 * (major - 1))
    assert older is not None
    assert f"cuda-core[cu{major - 1}]" in older
    unknown = compiler.unusable_reason((99, 9), 1000 * major)
    assert unknown is not None
    assert "99.9" in unknown


def test_without_the_packages_the_reason_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "missing_package", lambda: "cuda-core")
    compiler.unusable_reason.cache_clear()
    assert compiler.unusable_reason((8, 0), 13000) == "the package 'cuda-core' is not installed"
    compiler.unusable_reason.cache_clear()
