"""The heat map shows the numbers it was given, at the places it was given."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from genossm.core.errors import UsageError
from genossm.plotting import saturation_map, to_png

LETTERS = "ACGTACGTAC"
POS1 = np.arange(3_300_001, 3_300_011)


def scores_for(letters: str) -> np.ndarray:
    scores = np.linspace(-3.0, 1.0, 4 * len(letters)).reshape(-1, 4)
    scores[range(len(letters)), ["ACGT".index(letter) for letter in letters]] = 0.0
    return scores


def draw(**changes: object) -> Figure:
    arguments = {"scores": scores_for(LETTERS), "letters": LETTERS, "pos1": POS1, "contig": "20", **changes}
    return saturation_map(**arguments)  # type: ignore[arg-type]


def colours(figure: Figure) -> np.ndarray:
    """RGBA of every cell, (4, length, 4)."""
    [image] = figure.axes[0].get_images()
    return image.to_rgba(image.get_array())


def test_cells_hold_the_scores_and_nothing_is_the_middle_colour() -> None:
    figure = draw()
    [image] = figure.axes[0].get_images()
    np.testing.assert_array_equal(image.get_array(), scores_for(LETTERS).T)
    worst = scores_for(LETTERS).min()
    assert image.get_clim() == (worst, -worst)
    middle = colours(figure)[0, 0, :3]
    assert middle.min() > 0.95
    row, column = np.unravel_index(scores_for(LETTERS).argmin(), (10, 4))
    red, _, blue, _ = colours(figure)[column, row]
    assert red > blue + 0.2


def test_gains_are_blue_and_losses_red() -> None:
    scores = np.array([[0.0, 2.0, -2.0, 0.0]])
    cells = colours(draw(scores=scores, letters="A", pos1=[5]))
    assert cells[1, 0, 2] > cells[1, 0, 0] + 0.2
    assert cells[2, 0, 0] > cells[2, 0, 2] + 0.2


def test_the_limit_is_kept_on_both_sides() -> None:
    assert draw(limit=0.5).axes[0].get_images()[0].get_clim() == (-0.5, 0.5)


def test_a_map_of_zeros_still_has_colours() -> None:
    figure = draw(scores=np.zeros((10, 4)))
    assert figure.axes[0].get_images()[0].get_clim() == (-1.0, 1.0)


def test_reference_letters_stand_in_their_own_row() -> None:
    texts = draw().axes[0].texts
    found = [(text.get_text(), *text.get_position()) for text in texts]
    assert found == [(letter, place, "ACGT".index(letter)) for place, letter in enumerate(LETTERS)]
    assert min(text.get_fontsize() for text in texts) >= 8


def test_long_maps_mark_the_reference_by_dots() -> None:
    letters = LETTERS * 40
    axes = draw(scores=scores_for(letters), letters=letters, pos1=np.arange(1, 401)).axes[0]
    assert not axes.texts
    [dots] = axes.lines
    assert list(dots.get_ydata()) == ["ACGT".index(letter) for letter in letters]


def test_unknown_scores_are_grey_and_unmarked() -> None:
    scores = scores_for(LETTERS)
    scores[4] = np.nan
    figure = draw(scores=scores, letters="ACGTNCGTAC")
    assert tuple(colours(figure)[2, 4]) == pytest.approx(to_rgba("#DDDDDD"), abs=1 / 255)
    assert 4 not in [text.get_position()[0] for text in figure.axes[0].texts]


def ticks(figure: Figure) -> list[tuple[int, str]]:
    axes = figure.axes[0]
    return [(int(place), label.get_text()) for place, label in zip(axes.get_xticks(), axes.get_xticklabels())]


def test_positions_are_one_based_and_round() -> None:
    figure = draw()
    assert ticks(figure) == [(4, "3,300,005"), (9, "3,300,010")]
    assert figure.axes[0].get_xlabel() == "position on contig 20 (1-based)"


def test_the_minus_strand_counts_down_and_says_so() -> None:
    figure = draw(pos1=POS1[::-1])
    assert ticks(figure) == [(0, "3,300,010"), (5, "3,300,005")]
    assert "minus strand" in figure.axes[0].get_xlabel()


def test_labels_carry_units_and_can_be_read() -> None:
    axes, bar = draw().axes
    assert bar.get_ylabel() == "score (nats)"
    assert axes.get_ylabel() == "replaced by"
    labels = [*axes.get_xticklabels(), *axes.get_yticklabels(), *bar.get_yticklabels(), axes.xaxis.label]
    assert min(label.get_fontsize() for label in labels) >= 8


@pytest.mark.parametrize("length", [1, 3, 10, 37, 120, 700])
def test_numbers_do_not_run_into_one_another(length: int) -> None:
    letters = (LETTERS * 70)[:length]
    figure = draw(scores=scores_for(letters), letters=letters, pos1=np.arange(100_000_001, 100_000_001 + length))
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert boxes
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_it_becomes_a_picture() -> None:
    picture = np.asarray(Image.open(io.BytesIO(to_png(draw(), dots_per_inch=50))).convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": np.zeros((10, 3))}, r"shape \(10, 3\); wanted \(length, 4\)"),
        ({"scores": np.zeros(10)}, r"shape \(10,\)"),
        ({"scores": np.zeros((0, 4)), "pos1": [], "letters": ""}, r"shape \(0, 4\)"),
        ({"scores": np.zeros((9, 4))}, "9 rows and there are 10 positions"),
        ({"letters": "ACGT"}, "4 letters and 10 rows"),
        ({"scores": np.full((10, 4), -np.inf)}, "infinities"),
        ({"limit": 0.0}, r"limit of the colours is 0\.0"),
        ({"limit": float("nan")}, "limit of the colours is nan"),
    ],
)
def test_wrong_arguments_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        draw(**changes)
