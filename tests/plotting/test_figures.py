"""Figures from arrays of unlike lengths, unknown names, and file names that say no format."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from genossm.plotting import learning_curve, save_figure


def test_a_path_may_be_a_text(tmp_path: Path) -> None:
    save_figure(learning_curve([1.0], [2.0], [1.0], [2.0]), os.fspath(tmp_path / "x.png"))
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
