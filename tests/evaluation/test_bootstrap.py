"""The block bootstrap against what statistics says of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genossm.evaluation.bootstrap import (
    FEWEST_BLOCKS,
    block_bootstrap,
    interval_or_null,
    interval_text,
    percentile_interval,
)


def test_the_spread_is_that_of_a_mean_of_independent_blocks() -> None:
    rng = np.random.default_rng(0)
    counts = np.full(400, 100)
    sums = rng.normal(150.0, 20.0, (400, 1))
    replicates = block_bootstrap(sums, counts, replicates=4000)
    expected = (sums / 100).std() / np.sqrt(400)
    # The standard deviation of 4,000 replicates is itself known to about 1 %.
    assert replicates.std() == pytest.approx(expected, rel=0.05)
    assert replicates.mean() == pytest.approx(sums.sum() / counts.sum(), abs=4 * expected / np.sqrt(4000))
    low, high = percentile_interval(replicates[:, 0])
    assert high - low == pytest.approx(2 * 1.96 * expected, rel=0.1)


def test_differences_are_paired() -> None:
    rng = np.random.default_rng(1)
    first = rng.normal(150.0, 30.0, 100)
    replicates = block_bootstrap(np.stack([first, first - 5.0], axis=1), np.full(100, 100))
    np.testing.assert_allclose(replicates[:, 0] - replicates[:, 1], 0.05, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(data=st.data(), blocks=st.integers(FEWEST_BLOCKS, 12))
def test_a_constant_has_no_spread_whatever_the_blocks_hold(data: st.DataObject, blocks: int) -> None:
    counts = np.array(data.draw(st.lists(st.integers(0, 50), min_size=blocks, max_size=blocks)))
    counts[:FEWEST_BLOCKS] += 1
    replicates = block_bootstrap(counts[:, None] * 1.7, counts, replicates=50)
    np.testing.assert_allclose(replicates, 1.7, rtol=1e-12)


def test_the_seed_decides() -> None:
    sums, counts = np.random.default_rng(2).random((20, 2)), np.full(20, 3)
    assert np.array_equal(block_bootstrap(sums, counts, seed=1), block_bootstrap(sums, counts, seed=1))
    assert not np.array_equal(block_bootstrap(sums, counts, seed=1), block_bootstrap(sums, counts, seed=2))


@pytest.mark.parametrize("blocks", range(1, FEWEST_BLOCKS + 1))
def test_few_blocks_give_no_interval(blocks: int) -> None:
    """Empty blocks do not count: they say nothing of the spread."""
    counts = np.array([100] * blocks + [0] * 7)
    sums = np.random.default_rng(0).normal(150.0, 20.0, (len(counts), 2)) * (counts > 0)[:, None]
    replicates = block_bootstrap(sums, counts, replicates=50)
    assert replicates.shape == (50, 2)
    interval = percentile_interval(replicates[:, 0])
    assert np.isnan(interval).all() == (blocks < FEWEST_BLOCKS)
    assert (interval_or_null(interval) is None) == (blocks < FEWEST_BLOCKS)
    assert (interval_text(interval, ".4f") == "no interval") == (blocks < FEWEST_BLOCKS)


def test_nothing_to_resample_is_refused() -> None:
    with pytest.raises(ValueError, match="no block holds a scored base"):
        block_bootstrap(np.zeros((3, 1)), np.zeros(3, int))
