"""Intervals for figures measured along a sequence, where neighbouring bases are anything but independent."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Fewer say nothing of the spread: a single one gives every replicate the same mean, and an interval of no width.
FEWEST_BLOCKS = 5


def block_bootstrap(
    sums: NDArray[np.float64], counts: NDArray[np.int64], *, replicates: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Resample whole blocks with replacement; each replicate's mean is its sums over its counts.

    sums: (blocks, methods) totals of a quantity within each block.   counts: (blocks,) what they are totals over.
    Returns (replicates, methods); methods share their resamples, so columns may be subtracted (paired differences).
    All are NaN where fewer than FEWEST_BLOCKS blocks have a count.
    Raises: ValueError if there is no block or nothing was counted.
    Source: Künsch 1989, with blocks that do not overlap (Carlstein 1986).
    """
    if not len(sums) or not counts.sum():
        raise ValueError("There is nothing to resample: no block holds a scored base.")
    if np.count_nonzero(counts) < FEWEST_BLOCKS:
        return np.full((replicates, sums.shape[1]), np.nan)
    blocks = len(counts)
    draws = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1.0 / blocks), size=replicates)
    drawn = draws @ counts
    # A replicate of empty blocks alone says nothing; it can only arise where most blocks are empty.
    usable = drawn > 0
    return (draws[usable] @ sums) / drawn[usable, None]


def percentile_interval(values: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Central interval that holds a share `level` of the values; NaN at both ends without a value, or with a NaN."""
    if not len(values) or np.isnan(values).any():
        return math.nan, math.nan
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)


def interval_or_null(interval: tuple[float, float]) -> list[float] | None:
    """As JSON holds it, which has no NaN."""
    return None if math.isnan(interval[0]) else list(interval)


def interval_text(interval: Sequence[float] | None, form: str) -> str:
    """`low to high`, each in the format `form`; "no interval" for null and NaN."""
    if interval is None or math.isnan(interval[0]):
        return "no interval"
    low, high = interval
    return f"{low:{form}} to {high:{form}}"
