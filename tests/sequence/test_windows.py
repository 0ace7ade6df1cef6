from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genossm.core.errors import IntervalError
from genossm.sequence import context_on, scoring_window

CONTEXTS = st.integers(min_value=1, max_value=64).map(lambda quarter: 4 * quarter)


@given(st.data(), CONTEXTS, st.integers(min_value=1, max_value=2000))
def test_is_the_design_formula(data: st.DataObject, context: int, length: int) -> None:
    position = data.draw(st.integers(min_value=0, max_value=length - 1))
    k = 0
    # The largest k with kC/2 <= position - C/4, by counting: no floor division shared with the code.
    while 4 * (k + 1) * context // 2 <= 4 * position - context:
        k += 1
    start, end = scoring_window(position, context, length)
    assert (start, end) == (k * context // 2, min(length, k * context // 2 + context))
    assert start <= position < end
    # A quarter of the context stands on either side, but for the contig's own ends.
    assert position - start >= context // 4 or start == 0
    assert end - position > context // 4 or end == length


@given(st.data(), CONTEXTS, st.integers(min_value=8, max_value=2000))
def test_circular_windows_have_a_quarter_on_either_side_everywhere(
    data: st.DataObject, context: int, length: int
) -> None:
    position = data.draw(st.integers(min_value=0, max_value=length - 1))
    start, end = scoring_window(position, context, length, circular=True)
    used = context_on(context, length, circular=True)
    assert used == max(fours for fours in range(4, context + 1, 4) if fours <= length)
    assert end - start == used
    assert start % (used // 2) == 0
    assert position - start >= used // 4
    assert end - position > used // 4
    if 4 * position >= context and length >= context:
        assert start == scoring_window(position, context, length)[0]


def test_worked_examples() -> None:
    assert scoring_window(0, 1024, 10**6) == (0, 1024)
    assert scoring_window(767, 1024, 10**6) == (0, 1024)
    assert scoring_window(768, 1024, 10**6) == (512, 1536)
    assert scoring_window(999_999, 1024, 10**6) == (999_424, 1_000_000)


@pytest.mark.parametrize(
    ("position", "context", "length", "message"),
    [(-1, 8, 10, "Position -1"), (10, 8, 10, "Position 10"), (0, 6, 10, "multiple of 4"), (0, 0, 10, "multiple of 4")],
)
def test_impossible_windows(position: int, context: int, length: int, message: str) -> None:
    with pytest.raises(IntervalError, match=message):
        scoring_window(position, context, length)
