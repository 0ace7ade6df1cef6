"""Heights of logos against the formula, and letters drawn as tall as they are said to be."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from scipy.stats import entropy

from genossm.core.errors import MissingDependencyError, UsageError
from genossm.plotting import information_content, sequence_logo
from genossm.plotting.logo import COLOURS

HEIGHTS = np.array([[1.5, 0.2, 0.0, 0.1], [-0.5, 0.0, 0.7, -1.0], [0.0, 0.0, 0.0, 2.0]])


def test_information_of_known_rows() -> None:
    rows = [[1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0]]
    np.testing.assert_allclose(information_content(rows), [[2, 0, 0, 0], [0, 0, 0, 0], [0.5, 0.5, 0, 0]], atol=1e-12)


def test_information_against_an_outsider() -> None:
    probabilities = np.random.default_rng(0).dirichlet([0.5] * 4, size=100)
    found = information_content(probabilities)
    np.testing.assert_allclose(found.sum(axis=1), 2 - entropy(probabilities, base=2, axis=1), atol=1e-9)
    np.testing.assert_allclose(found / found.sum(axis=1, keepdims=True), probabilities)


def test_information_of_nothing_is_nothing() -> None:
    found = information_content([[np.nan] * 4, [1, 0, 0, 0]])
    assert np.isnan(found[0]).all()
    assert found[1].tolist() == [2, 0, 0, 0]


@pytest.mark.parametrize(
    "rows", [[[0.5, 0.5, 0.5, 0.5]], [[1.5, -0.5, 0, 0]], [[np.nan, 0.5, 0.5, 0]], [[0.5, 0.5]], 0.3, [0.25] * 4]
)
def test_what_is_no_probability_is_refused(rows: object) -> None:
    with pytest.raises(UsageError, match="probabilities"):
        information_content(rows)  # type: ignore[arg-type]


def test_letters_are_as_tall_as_their_numbers() -> None:
    figure = sequence_logo(HEIGHTS, [11, 12, 13], contig="20", label="score (nats)")
    axes = figure.axes[0]
    boxes = [(patch.get_extents().transformed(axes.transData.inverted()), patch) for patch in axes.patches]
    wanted = {(row, base): height for (row, base), height in np.ndenumerate(HEIGHTS) if height}
    found: dict[tuple[int, int], float] = {}
    for box, patch in boxes:
        [base] = [i for i, letter in enumerate("ACGT") if to_rgba(COLOURS[letter]) == patch.get_facecolor()]
        place = round((box.x0 + box.x1) / 2)
        found[place, base] = found.get((place, base), 0.0) + box.height * np.sign(box.y0 + box.y1)
    assert {key for key, height in found.items() if abs(height) > 1e-6} == set(wanted)
    for key, height in wanted.items():
        assert found[key] == pytest.approx(height, rel=0.05)


def test_the_tallest_letter_is_on_top() -> None:
    axes = sequence_logo([[0.2, 0.5, 1.0, 0.1]], [7], contig="20").axes[0]
    tops = {}
    for patch in axes.patches:
        box = patch.get_extents().transformed(axes.transData.inverted())
        tops[patch.get_facecolor()] = box.y1
    ordered = sorted("ACGT", key=lambda letter: tops[to_rgba(COLOURS[letter])])
    assert "".join(ordered) == "TACG"
    assert tops[to_rgba(COLOURS["G"])] == pytest.approx(1.8, rel=0.05)


def test_axes_are_numbered_and_named() -> None:
    axes = sequence_logo(HEIGHTS, [11, 12, 13], contig="20").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["11", "12", "13"]
    assert axes.get_ylabel() == "information (bits)"
    assert axes.get_xlabel() == "position on contig 20 (1-based)"


def test_missing_rows_are_left_empty() -> None:
    heights = HEIGHTS.copy()
    heights[1] = np.nan
    axes = sequence_logo(heights, [11, 12, 13], contig="20").axes[0]
    boxes = [patch.get_extents().transformed(axes.transData.inverted()) for patch in axes.patches]
    assert {round((box.x0 + box.x1) / 2) for box in boxes if box.height > 1e-6} == {0, 2}


@pytest.mark.parametrize("heights", [np.zeros((3, 5)), np.zeros((2, 4)), np.zeros(4), np.full((3, 4), np.inf)])
def test_wrong_shapes_are_refused(heights: np.ndarray) -> None:
    with pytest.raises(UsageError, match="heights"):
        sequence_logo(heights, [11, 12, 13], contig="20")


def test_without_logomaker_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "logomaker", None)
    with pytest.raises(MissingDependencyError, match=r"genossm\[plot\]"):
        sequence_logo(HEIGHTS, [11, 12, 13], contig="20")
