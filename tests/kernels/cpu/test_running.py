"""Threads, forks, the cache on disk, and tensors larger than 32 bits can count."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import genossm_kernels
from genossm_kernels import causal_conv1d, selective_scan
from genossm_kernels._cpu import team
from genossm_kernels.testing import cast, conv_results, scan_inputs, scan_results

PACKAGE = Path(genossm_kernels.__file__).parent


def run_python(code: str, *, path: Path = PACKAGE.parent, **environment: str) -> str:
    """Run code in a new interpreter that finds the kernels under `path`; its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(path), **environment},
        capture_output=True,
        text=True,
        timeout=240,
        cwd=path,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.usefixtures("threads")
def test_python_threads_do_what_openmp_s_do(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(3)
    inputs = cast(scan_inputs(batch=2, length=200, channels=200), torch.float32)
    conv = {"x": inputs["u"], "weight": inputs["A"][:, :4]}
    expected = scan_results(inputs, backend="cpu"), conv_results(conv, backend="cpu")
    monkeypatch.setattr(team, "_openmp_start", lambda: None)
    found = scan_results(inputs, backend="cpu"), conv_results(conv, backend="cpu")
    assert team._pool is not None
    assert team._pool[:2] == (os.getpid(), 2)
    for left, right in zip(expected, found, strict=True):
        for name, tensor in left.items():
            assert torch.equal(tensor, right[name]), name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_neither_hangs_nor_differs() -> None:
    """As DataLoader's workers are made, after the parent has used its threads, in both ways of having threads."""
    out = run_python(
        """
        import os, torch
        from genossm_kernels._cpu import team
        from genossm_kernels.testing import cast, scan_inputs, scan_results

        torch.set_num_threads(2)
        inputs = cast(scan_inputs(batch=2, length=300, channels=200), torch.float32)
        for way in ("openmp", "threads"):
            if way == "threads":
                team._openmp_start = lambda: None
            before = scan_results(inputs, backend="cpu", gradients=False)["y"].numpy()
            child = os.fork()
            if child == 0:  # numpy compares: PyTorch's own parallel loops may hang here
                after = scan_results(inputs, backend="cpu", gradients=False)["y"].numpy()
                os._exit(0 if (before == after).all() and torch.get_num_threads() == 2 else 3)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    assert out.split() == ["0", "0"]


def test_compiled_code_is_kept_until_a_shared_file_changes(tmp_path: Path) -> None:
    """Numba itself only watches the file of the entry."""
    shutil.copytree(PACKAGE, tmp_path / "genossm_kernels", ignore=shutil.ignore_patterns("__pycache__"))
    code = """
        import torch
        from genossm_kernels.selective_scan.cpu_steps import scan_steps
        print(scan_steps.compile(torch.float32).cache_hits)
    """
    assert run_python(code, path=tmp_path).split() == ["0"]
    assert run_python(code, path=tmp_path).split() == ["1"]
    with open(tmp_path / "genossm_kernels" / "_cpu" / "elementary.py", "a") as file:
        file.write("# changed\n")
    assert run_python(code, path=tmp_path).split() == ["0"]


def test_without_any_folder_to_keep_them_in_kernels_still_run(tmp_path: Path) -> None:
    out = run_python(
        """
        import numba.core.caching, torch
        def nowhere(*args, **kwargs):
            raise RuntimeError("cannot cache function: no locator available")
        numba.core.caching.FunctionCache.__init__ = nowhere
        from genossm_kernels import selective_scan
        one = torch.ones(1, 1, 1)
        print(selective_scan(one, one, -one[0], one[..., None], one[..., None], delta_softplus=False).item())
        """,
        NUMBA_CACHE_DIR=str(tmp_path),
    )
    assert float(out) == 1.0


def test_offsets_past_two_to_the_31() -> None:
    """Two positions, over 2^31 elements apart in one storage: address space, not memory."""
    apart = 2**31 + 11
    try:
        storage = torch.empty(apart + 64)
    except RuntimeError:
        pytest.skip("this machine does not lend 8 GiB of address space")
    far = storage.as_strided((1, 2, 5), (0, apart, 1))
    far.copy_(torch.randn(1, 2, 5, generator=torch.Generator().manual_seed(0)))
    near = far.clone(memory_format=torch.contiguous_format)
    A, B, weight = -torch.ones(5, 3), torch.ones(1, 2, 1, 3), torch.ones(5, 2)
    for reverse in (False, True):
        results = []
        for u in (near.clone().requires_grad_(), far.detach().requires_grad_()):
            y = selective_scan(u, u, A, B, B, z=u, reverse=reverse, backend="cpu")
            x = causal_conv1d(u, weight, reverse=reverse, backend="cpu")
            results.append([y, x, *torch.autograd.grad(y.sum() + x.sum(), [u])])
            with torch.no_grad():
                results[-1].append(selective_scan(u, u, A, B, B, z=u, reverse=reverse, backend="cpu"))
        for left, right in zip(*results, strict=True):
            assert torch.equal(left, right)


def test_saved_memory_is_linear_in_length_and_less_than_the_inputs() -> None:
    """One state every 32 positions: half an input for 16 states."""
    saved: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.untyped_storage().nbytes())
        return tensor

    sizes = []
    for length in (320, 640):
        inputs = cast(scan_inputs(length=length, channels=64, initial_state=False), torch.float32)
        leaves = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
        saved.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            selective_scan(**leaves, backend="cpu")
        sizes.append(sum(saved) - sum(tensor.untyped_storage().nbytes() for tensor in inputs.values()))
    assert sizes[0] == 320 // 32 * 64 * 16 * 4
    assert sizes[1] == 2 * sizes[0]
