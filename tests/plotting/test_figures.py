"""Figures from arrays of unlike lengths, unknown names, and file names that say no format."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from genossm.core.errors import UsageError
from genossm.plotting import (
    bits_along_region,
    bits_comparison,
    learning_curve,
    roc_curves,
    save_figure,
    scores_by_frequency,
)

BOX = (-2.0, -1.0, 0.0, 1.0, 2.0)


def test_a_path_may_be_a_text(tmp_path: Path) -> None:
    save_figure(learning_curve([1.0], [2.0], [1.0], [2.0]), os.fspath(tmp_path / "x.png"))
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["x.jpg", "x", "x.tiff"])
def test_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"ends in \.png, \.svg or \.pdf"):
        save_figure(learning_curve([1.0], [2.0], [1.0], [2.0]), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_unequal_lengths_and_unknown_names_are_refused() -> None:
    pair = [(1.8, 1.9), (1.7, 1.8)]
    assert bits_comparison(["m", "k"], [1.9, 1.8], pair, model="m")
    with pytest.raises(UsageError, match="names 2, bits 1, intervals 2; wanted one a method"):
        bits_comparison(["m", "k"], [1.9], pair, model="m")
    with pytest.raises(UsageError, match="highlight is 'x'; wanted one of 'm', 'k'"):
        bits_comparison(["m", "k"], [1.9, 1.8], pair, model="x")
    assert bits_along_region([0, 10], {"m": [1.9, 1.8]}, contig="20", model="m")
    with pytest.raises(UsageError, match="starts 2, values of m 1; wanted one a block"):
        bits_along_region([0, 10], {"m": [1.9]}, contig="20", model="m")
    with pytest.raises(UsageError, match="highlight is 'x'"):
        bits_along_region([0, 10], {"m": [1.9, 1.8]}, contig="20", model="x")
    assert scores_by_frequency(["rare", "common"], [3, 4], [BOX, BOX], score_name="nats")
    with pytest.raises(UsageError, match="labels 2, counts 1, quantiles 2; wanted one a bin"):
        scores_by_frequency(["rare", "common"], [3], [BOX, BOX], score_name="nats")
    with pytest.raises(UsageError, match="4 points for common"):
        scores_by_frequency(["rare", "common"], [3, 4], [BOX, BOX[1:]], score_name="nats")  # type: ignore[list-item]
    assert roc_curves({"m": ([0.0, 1.0], [0.0, 1.0])}, model="m")
    with pytest.raises(UsageError, match="false positive rates of m 2, true positive rates of m 1"):
        roc_curves({"m": ([0.0, 1.0], [0.0])}, model="m")
    with pytest.raises(UsageError, match="highlight is 'x'"):
        roc_curves({"m": ([0.0, 1.0], [0.0, 1.0])}, model="x")
