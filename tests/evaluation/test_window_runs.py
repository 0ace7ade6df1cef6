"""Windows of an evaluation: every place is judged once, with the flanks that were promised."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from genossm.evaluation.window_runs import window_runs
from genossm.sequence.interval import Interval


@given(
    start=st.integers(0, 60),
    length=st.integers(1, 90),
    margin=st.integers(0, 40),
    half=st.integers(1, 20),
    left=st.integers(0, 30),
    right=st.integers(0, 30),
    size=st.integers(1, 5),
)
def test_every_place_is_judged_once_with_its_flanks(
    start: int, length: int, margin: int, half: int, left: int, right: int, size: int
) -> None:
    region, around = Interval("x", start, start + length), Interval("x", max(0, start - left), start + length + margin)
    positions = np.arange(around.start, around.end)
    judged = []
    for run in window_runs(region, around, half=half, left=left, right=right, size=size):
        windows = run.windows(positions, around.start)
        assert windows.shape == (run.count, run.length)
        assert run.count <= size
        inside = windows[:, run.first - run.start : run.first - run.start + half].reshape(-1)
        judged += inside[: run.last - run.first].tolist()
        for row, window in enumerate(windows):
            first = run.first + row * half
            assert (np.diff(window) == 1).all()
            assert window[0] == max(around.start, first - left)
            assert window[-1] == min(around.end, first + half + right) - 1
    assert judged == list(range(region.start, region.end))
