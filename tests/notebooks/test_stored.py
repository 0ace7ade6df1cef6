"""Notebooks are stored as sources: what they show is what they give today."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat

from genossm.models.shipped import shipped_names


def test_no_notebook_holds_outputs(notebooks: Path) -> None:
    paths = sorted(notebooks.glob("*.ipynb"))
    assert paths
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            assert not cell.get("outputs"), (path.name, cell["id"])
            assert cell.get("execution_count") is None, (path.name, cell["id"])


def test_cells_have_names_so_that_changes_can_be_read(notebooks: Path) -> None:
    for path in notebooks.glob("*.ipynb"):
        names = [cell["id"] for cell in nbformat.read(path, as_version=4).cells]
        assert len(set(names)) == len(names)
        assert all(name.replace("-", "").isalpha() for name in names)


def test_paths_are_relative(notebooks: Path) -> None:
    for path in notebooks.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell["cell_type"] == "code":
                source = "\n".join(line for line in cell["source"].splitlines() if not line.startswith("%"))
                texts = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
                assert not [text for text in texts if isinstance(text, str) and text.startswith(("/", "~"))]


def test_the_tour_names_a_model_that_ships(notebooks: Path) -> None:
    cells = nbformat.read(notebooks / "01_tour.ipynb", as_version=4).cells
    text = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    named = re.findall(r'genossm\.load\("([^"]+)"\)', text)
    assert named
    assert set(named) <= set(shipped_names())
