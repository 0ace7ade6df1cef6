"""Where a reference has letters other than A, C, G, T: runs of N, mostly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome

_CHUNK = 1 << 20
_IS_UNKNOWN = np.ones(256, bool)
_IS_UNKNOWN[np.frombuffer(b"ACGTacgt", np.uint8)] = False


@dataclass(frozen=True, eq=False)
class UnknownRuns:
    """Maximal runs of unknown letters within one interval, 0-based half-open, sorted; memory grows with runs alone."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def scan(cls, genome: Genome, interval: Interval) -> UnknownRuns:
        """Read the whole interval, a megabase at a time; once a genome, since a run plans several window lengths."""
        known = _SCANNED.setdefault(genome, {})
        place = (interval.contig, interval.start, interval.end)
        if place not in known:
            known[place] = cls._read(genome, interval)
        return known[place]

    @classmethod
    def _read(cls, genome: Genome, interval: Interval) -> UnknownRuns:
        edges: list[NDArray[np.int64]] = []
        previous = False
        for start in range(interval.start, interval.end, _CHUNK):
            end = min(start + _CHUNK, interval.end)
            unknown = _IS_UNKNOWN[genome.fetch_array(Interval(interval.contig, start, end))]
            changes = np.flatnonzero(np.diff(unknown, prepend=previous))
            edges.append(changes.astype(np.int64) + start)
            previous = bool(unknown[-1])
        if previous:
            edges.append(np.array([interval.end], np.int64))
        flat = np.concatenate(edges) if edges else np.empty(0, np.int64)
        return cls(flat[0::2], flat[1::2])

    def __len__(self) -> int:
        return len(self.starts)

    def count(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of unknown letters in each [start, end)."""
        return self._before(ends) - self._before(starts)

    def _before(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Unknown letters left of each position."""
        if not len(self.starts):
            return np.zeros(len(positions), np.int64)
        cumulative = np.concatenate([[0], np.cumsum(self.ends - self.starts)])
        run = np.searchsorted(self.starts, positions, side="right")
        last = np.maximum(run - 1, 0)
        # Inside its last run a position has only that run's part to its left.
        overhang = np.where(run > 0, np.maximum(self.ends[last] - positions, 0), 0)
        return cumulative[run] - overhang


# Scans by open genome and place.
_SCANNED: WeakKeyDictionary[Genome, dict[tuple[str, int, int], UnknownRuns]] = WeakKeyDictionary()
