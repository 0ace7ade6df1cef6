from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")

from genossm.plotting import learning_curve


def test_the_curve_shows_both_lines_over_millions_of_tokens_and_says_what_it_counts() -> None:
    figure = learning_curve(
        [1e6, 2e6], [1.9, 1.8], [2e6], [1.85], levels={"order 11": 1.7}, unit="masked bits per base"
    )
    (axes,) = figure.axes
    training, validation, level = axes.get_lines()
    assert (list(training.get_xdata()), list(training.get_ydata())) == ([1, 2], [1.9, 1.8])
    assert (list(validation.get_xdata()), list(validation.get_ydata())) == ([2], [1.85])
    assert set(level.get_ydata()) == {1.7}
    assert axes.get_ylabel() == "masked bits per base"
    assert "million" in axes.get_xlabel()
