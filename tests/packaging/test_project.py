"""The project's own files agree with each other."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_version_is_the_same_everywhere(project: dict) -> None:
    assert f"version: {project['version']}\n" in (ROOT / "CITATION.cff").read_text()
    from genossm import __version__

    assert __version__ == project["version"]


def test_constraints_hold_every_direct_requirement(project: dict) -> None:
    pinned = {
        re.split("==", line)[0].lower().replace("-", "_")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    extras = project["optional-dependencies"]
    tested = ("train", "plot", "cuda", "remote", "tables", "tracks", "workflow", "dev")
    wanted = [need for name in tested for need in extras[name]] + project["dependencies"]
    names = {re.split(r"[\[<>=~; ]", need)[0].lower().replace("-", "_") for need in wanted} - {"genossm"}
    assert names <= pinned


def test_commands_of_the_readme_are_those_of_the_demo() -> None:
    """`make demo` runs what the README shows, in the same order."""
    readme = (ROOT / "README.md").read_text()
    planned = subprocess.run(
        ["make", "--no-print-directory", "-n", "-o", ".venv/.demo", "demo"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    demo = [line.strip() for line in planned.stdout.splitlines() if line.startswith("genossm ")]
    shown = [line.strip() for line in readme.splitlines() if line.startswith("genossm ")]
    assert len(demo) >= 5
    positions = [shown.index(line) for line in demo]
    assert positions == sorted(positions)


def test_example_data_stays_small() -> None:
    assert sum(file.stat().st_size for file in (ROOT / "data").rglob("*") if file.is_file()) < 10e6


def test_no_package_files_where_there_is_no_package() -> None:
    for folder in ("kernels", "data", "configs", "notebooks", "workflows"):
        assert not (ROOT / folder / "__init__.py").exists()
