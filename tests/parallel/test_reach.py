"""How far a state is followed that enters a part."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from genossm.parallel.scan import find_reach

UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}


@given(
    st.integers(1, 20_000),
    st.floats(-9, 2),
    st.booleans(),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 1000),
)
def test_it_ends_where_the_state_is_gone_and_not_much_later(
    length: int, bias: float, reverse: bool, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    delta = torch.randn(2, length, 3, generator=generator, dtype=dtype)
    biases, A = torch.full((3,), bias, dtype=dtype), -torch.tensor([[1.0, 2.0], [0.5, 4.0], [3.0, 1.0]], dtype=dtype)
    found = find_reach(delta, biases, A, reverse=reverse)
    steps = F.softplus(delta.double() + bias)
    steps = steps.flip(1) if reverse else steps
    left = torch.exp(-steps.cumsum(1) * torch.tensor([1.0, 0.5, 1.0])).amax((0, 2))
    count = found.span.stop - found.span.start
    assert found.span == (slice(length - count, length) if reverse else slice(0, count))
    torch.testing.assert_close(found.sums, steps[:, :count].sum(1).to(dtype), rtol=1e-4, atol=0)
    gone = (left < UNIT[dtype] ** 2).nonzero()
    if found.whole:
        assert count == length
        # Rounding may decide at the very end.
        assert not len(gone) or left[-1] > 0.99 * UNIT[dtype] ** 2
    else:
        assert left[count - 1] < 1.01 * UNIT[dtype] ** 2
        assert count <= max(4096, 1.15 * (int(gone[0]) + 1) + 4096)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_numbers_that_are_none_end_the_search(value: float) -> None:
    delta = torch.full((1, 10_000, 1), value)
    assert find_reach(delta, torch.zeros(1), -torch.ones(1, 1), reverse=False).whole
