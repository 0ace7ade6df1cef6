"""A distribution of scores in a table of fixed size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

POINTS = 2049
"""Order statistics that are kept, evenly spaced in rank."""
TAIL = 512
"""Lowest, and highest, scores that are kept besides, all of them."""


@dataclass(frozen=True, eq=False)
class Sketch:
    """values: distinct scores, ascending.   below, at_or_below: shares of all scores, exact at these.   count: of all.

    Up to `POINTS` scores are kept whole. Of more, some lie between two values; their share there is taken to rise
    evenly, which errs by less than 1 / (POINTS - 1), and not at all among the `TAIL` lowest and highest.
    """

    values: NDArray[np.float64]
    below: NDArray[np.float64]
    at_or_below: NDArray[np.float64]
    count: int

    @classmethod
    def of(cls, scores: ArrayLike) -> Sketch:
        """Raises: ValueError without a score, or for one that is no number."""
        ordered = np.sort(np.asarray(scores, dtype=np.float64))
        count = len(ordered)
        if not count or not np.isfinite(ordered).all():
            raise ValueError(f"Wanted finite scores, at least one; got {count}.")
        ranks = np.linspace(0, count - 1, min(POINTS, count)).astype(np.int64)
        tails = np.arange(min(TAIL, count))
        values = np.unique(ordered[np.concatenate([ranks, tails, count - 1 - tails])])
        below = np.searchsorted(ordered, values, side="left") / count
        return cls(values, below, np.searchsorted(ordered, values, side="right") / count, count)

    def share_at_or_below(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Of each score, the share of the scores that were sketched at or below it: 0 to 1, rising with the score."""
        scores = np.asarray(scores, dtype=np.float64)
        last = np.searchsorted(self.values, scores, side="right") - 1
        here, after = np.clip(last, 0, None), np.clip(last + 1, None, len(self.values) - 1)
        width = self.values[after] - self.values[here]
        along = np.divide(scores - self.values[here], width, out=np.zeros_like(scores), where=width > 0)
        # At a value itself the share jumps; the rise is what lies between it and the next one.
        rise = np.clip(self.below[after] - self.at_or_below[here], 0, None)
        return np.where(last < 0, 0.0, self.at_or_below[here] + np.clip(along, 0, 1) * rise)

    @property
    def largest_error(self) -> float:
        """What a share can be off by at most."""
        between = self.below[1:] - self.at_or_below[:-1]
        return float(between.max(initial=0.0))
