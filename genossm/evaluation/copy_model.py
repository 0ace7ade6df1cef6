"""A copy model of DNA: repeats that are copied, with a confidence that is learned on the way, mixed with counts.

What compressors of genomes do (GeCo, Pratas et al. 2016; XM, Cao et al. 2007), reduced to what a baseline needs, and as
probabilities of the next base, so that its bits are bits. Experts, each of which says ln p of A, C, G, T:

- an order-12 Markov model of the training sequence (`MarkovModel`, tuned on validation), and order-2 counts of the
  window;
- six copies: for the last 24, 16 and 12 bases, the latest place in the window where they stood, as they stand or on the
  other strand. A copy expects the base that followed there and goes on through mismatches until 8 of 16 bases were
  wrong; its chance of being right is learned for every (bases right in a row, misses among the last 16);
- if the history also holds the training sequence: a seventh copy from there, and counts of what followed the last 14,
  16, 18, 22 bases there, on both strands.

They are mixed geometrically, p ∝ exp Σ w ln p, with weights that learn at every base by one step down the gradient of
its -ln p (Mattern 2012); which set of weights is used depends on how good the best copy is. Weights and chances start
from what one reading of the validation sequence leaves, at every window anew: no window depends on another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import ConfigError
from genossm.evaluation.bases_methods import Scores
from genossm.evaluation.copy_kernel import (
    BUCKETS,
    COPIES,
    FIRST_COPY,
    LENGTHS,
    MISSES,
    TABLE_BITS,
    read_window,
)
from genossm.evaluation.copy_tables import counts_after, latest_copies
from genossm.evaluation.markov import UNKNOWN, MarkovModel, base_codes
from genossm.evaluation.window_runs import window_runs
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome

TRAINED_ORDERS = (14, 16, 18, 22)
MIN_CONTEXT = 32


@dataclass(eq=False)
class _State:
    """What is learned on the way: weights (sets, experts), chances of copies being right, how often each was tried."""

    weights: NDArray[np.float64]
    chances: NDArray[np.float64]
    seen: NDArray[np.float64]

    @classmethod
    def fresh(cls, orders: int) -> _State:
        weights = np.full(((BUCKETS + 1) * (orders + 1), FIRST_COPY + COPIES + orders), 0.15)
        weights[:, 0] = 0.8
        chances = np.full((COPIES, BUCKETS * MISSES), 0.5)
        return cls(weights, chances, np.zeros_like(chances))

    def copy(self) -> _State:
        return _State(self.weights.copy(), self.chances.copy(), self.seen.copy())


@dataclass(frozen=True, eq=False)
class _Sequence:
    """A region with what stands before it, and what the training sequence says about every place of it."""

    around: Interval
    codes: NDArray[np.uint8]
    markov: NDArray[np.float32]
    counts: NDArray[np.uint16]
    copies: NDArray[np.int64]


@dataclass(eq=False)
class CopyModel:
    """See the module's text.

    markov: of the training sequence.   train: the training sequence, if the history is to hold it.
    reach: bases before a region that its windows may read.
    """

    genome: Genome
    markov: MarkovModel
    validation: Sequence[Interval]
    train: Sequence[NDArray[np.uint8]] | None
    reach: int
    _sequences: dict[Interval, _Sequence] = field(default_factory=dict)
    _starts: dict[int, _State] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tables = np.zeros((len(LENGTHS), 1 << TABLE_BITS), np.int64)
        self._stamp = 0
        # Codes of unknown bases keep copies from running out of one stretch into the next.
        gap = np.array([UNKNOWN], np.uint8)
        parts = [part for codes in self.train or () for part in (codes, gap)]
        self._joined = np.concatenate(parts) if parts else np.zeros(0, np.uint8)

    def score(self, region: Interval, context: int) -> Scores:
        """ln p of each base of `region` from windows as `base_log_probabilities` cuts them, and which are scored.

        Raises: ConfigError for a context that is odd, too short to copy in or longer than `reach` allows.
        """
        if context < MIN_CONTEXT or context % 2 or context // 2 > self.reach:
            raise ConfigError(f"A copy model of {context} bases; wanted {MIN_CONTEXT} to {2 * self.reach}, even.")
        if context not in self._starts:
            state = _State.fresh(len(self._orders))
            for part in self.validation:
                self._read(part, context, state, learn=True)
            self._starts[context] = state
        return self._read(region, context, self._starts[context], learn=False)

    @property
    def _orders(self) -> tuple[int, ...]:
        return () if self.train is None else TRAINED_ORDERS

    def _read(self, region: Interval, context: int, state: _State, *, learn: bool) -> Scores:
        """Read a region's windows; every one starts from `state`, or from what the one before has left in it."""
        sequence = self._sequence(region)
        values = np.zeros(len(region))
        half, offset = context // 2, sequence.around.start
        around = Interval(region.contig, max(0, region.start - half), region.end)
        for run in window_runs(region, around, half=half, left=half, right=0, size=1):
            now = state if learn else state.copy()
            read_window(
                sequence.codes,
                run.start - offset,
                run.start - offset + run.length,
                run.first - offset,
                sequence.markov,
                sequence.counts,
                sequence.copies,
                self._joined,
                now.weights,
                now.chances,
                now.seen,
                self._tables,
                self._stamp,
                values[run.first - region.start : run.last - region.start],
            )
            self._stamp += run.length + 1
        return values, sequence.codes[region.start - offset :] < UNKNOWN

    def _sequence(self, region: Interval) -> _Sequence:
        if region not in self._sequences:
            around = Interval(region.contig, max(0, region.start - self.reach), region.end)
            codes = base_codes(self.genome.fetch_array(around))
            # Single precision must not round a certain base to one.
            markov = np.log(np.minimum(self.markov.distributions(codes), 1 - 1e-6)).astype(np.float32)
            counts = [counts_after(codes, self.train or (), order) for order in self._orders]
            stacked = np.stack(counts) if counts else np.zeros((0, 0, 4), np.uint16)
            copies = latest_copies(codes, self._joined, LENGTHS[0]) if self._orders else np.zeros(0, np.int64)
            self._sequences[region] = _Sequence(around, codes, markov, stacked, copies)
        return self._sequences[region]
