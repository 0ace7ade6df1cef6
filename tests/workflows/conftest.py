"""The variant scoring workflow as a pipeline user runs it, on slices of the example data."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / "workflows" / "variant_scoring"
Call = Callable[..., subprocess.CompletedProcess[str]]


def _call(program: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A program of this interpreter's environment, on one thread."""
    programs = Path(sys.executable).parent
    variables = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
        # Snakemake keeps what it has fetched here.
        "XDG_CACHE_HOME": str(cwd / ".cache"),
    }
    command = [programs / program, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True)


@pytest.fixture(scope="session")
def call() -> Call:
    return _call


@pytest.fixture(scope="session")
def workflow() -> Path:
    return WORKFLOW


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `.test/prepare.py` makes. Do not write to it."""
    folder = tmp_path_factory.mktemp("workflow") / "inputs"
    done = _call("python", WORKFLOW / ".test" / "prepare.py", ROOT / "data", folder, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def project(inputs: Path, tmp_path: Path) -> Path:
    """A project of its own with the inputs and their configuration."""
    return Path(shutil.copytree(inputs, tmp_path / "project"))


@pytest.fixture(scope="session")
def snakemake() -> Call:
    def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        return _call("snakemake", "--snakefile", WORKFLOW / "Snakefile", *arguments, cwd=folder)

    return run
