"""Windows of one length, half of it apart, that judge a region piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genossm.sequence.interval import Interval


@dataclass(frozen=True)
class WindowRun:
    """`count` windows of `length` bases, `half` apart, the first from `start` on.

    first, last: the places that they judge together, each window `half` of them, the last perhaps fewer.
    """

    start: int
    length: int
    half: int
    count: int
    first: int
    last: int

    def windows(self, values: NDArray[Any], values_start: int) -> NDArray[Any]:
        """(count, length) copies of stretches of `values`, whose first entry stands at position `values_start`."""
        offset = self.start - values_start
        if self.count == 1:
            return values[None, offset : offset + self.length].copy()
        views = np.lib.stride_tricks.sliding_window_view(values, self.length)
        return views[offset : offset + self.count * self.half : self.half].copy()


def window_runs(
    region: Interval, around: Interval, *, half: int, left: int, right: int, size: int
) -> Iterator[WindowRun]:
    """Windows that judge `half` bases each, see `left` bases before these and `right` after, none outside `around`.

    Only windows that `around` cuts are shorter than the others. At most `size` of one length stand in a run.
    """
    first = region.start
    while first < region.end:
        whole = (around.end - right - first) // half if first - left >= around.start else 0
        count = max(1, min(whole, size))
        start = max(around.start, first - left)
        length = (left + half + right) if whole > 0 else min(first + half + right, around.end) - start
        last = min(first + half * count, region.end)
        yield WindowRun(start, length, half, count, first, last)
        first = last
