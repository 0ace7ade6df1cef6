"""Notebooks run as a reader runs them, in a kernel of their own that has no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

# Loaded by the kernel's interpreter before anything else; the kernel's own messages do not pass through these sockets.
_GUARD = """
import socket

_connect = socket.socket.connect


def connect(self, address):
    if self.family != socket.AF_UNIX and not str(address[0]).startswith(("127.", "::1", "localhost")):
        raise RuntimeError(f"A notebook tried to reach {address}.")
    return _connect(self, address)


socket.socket.connect = connect
"""

# In a process of its own: the client leaves sockets to the garbage collector, which tests hold to be an error.
_RUNNER = """
import sys

import nbformat
from nbclient import NotebookClient

path, folder = sys.argv[1:]
notebook = nbformat.read(path, as_version=4)
NotebookClient(notebook, timeout=500, resources={"metadata": {"path": folder}}).execute()
nbformat.write(notebook, path)
"""


@dataclass(frozen=True)
class Executed:
    """cells: of the notebook, with their outputs.   probe: what the probe found.   folder: what the probe kept.
    left: new files beside the notebook.
    """

    cells: dict[str, nbformat.NotebookNode]
    probe: dict[str, Any]
    folder: Path
    left: set[Path]

    def pictures(self) -> dict[str, str]:
        """Base64 PNG by cell."""
        outputs = ((name, output) for name, cell in self.cells.items() for output in cell.get("outputs", ()))
        return {name: out["data"]["image/png"] for name, out in outputs if "image/png" in out.get("data", {})}

    def text(self, cell: str) -> str:
        return "".join(output["text"] for output in self.cells[cell]["outputs"] if output["output_type"] == "stream")


@pytest.fixture(scope="session")
def notebooks() -> Path:
    return NOTEBOOKS


@pytest.fixture(scope="session")
def execute(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Executed]:
    """Run a notebook; `probe` is code that runs before the cell `before` and leaves what a test asks for in the
    dictionary `probe` and the folder `kept`."""

    def run(name: str, *, probe: str, before: str) -> Executed:
        folder = tmp_path_factory.mktemp("notebook")
        (folder / "sitecustomize.py").write_text(_GUARD)
        (folder / "kept").mkdir()
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        [place] = [i for i, cell in enumerate(notebook.cells) if cell["id"] == before]
        notebook.cells.insert(place, nbformat.v4.new_code_cell(_with_result(probe, folder)))
        nbformat.write(notebook, folder / name)
        variables = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "HF_HUB_OFFLINE": "1",
            "IPYTHONDIR": str(folder / "ipython"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        }
        command = [sys.executable, "-c", _RUNNER, str(folder / name), str(NOTEBOOKS)]
        before_run = set(NOTEBOOKS.iterdir())
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        cells = {cell["id"]: cell for cell in nbformat.read(folder / name, as_version=4).cells}
        found = json.loads((folder / "probe.json").read_text())
        return Executed(cells, found, folder / "kept", set(NOTEBOOKS.iterdir()) - before_run)

    return run


def _with_result(probe: str, folder: Path) -> str:
    return "\n".join(
        (
            "import json, pathlib",
            f"probe, kept = {{}}, pathlib.Path({str(folder / 'kept')!r})",
            probe,
            f"_ = pathlib.Path({str(folder / 'probe.json')!r}).write_text(json.dumps(probe))",
        )
    )
