"""Two-sided Markov models of DNA: the count tables that a masked model has to beat.

The context of a place is the known bases nearest to it on both flanks, one more at every step of a ladder:

    p_t(b | c_t) = (n_t(c_t b) + a_t p_{t-1}(b | c_{t-1})) / (n_t(c_t) + a_t),      p_{-1}(b) = 1/4,

where c_t are the t nearest known bases and their distances, and n_t(c_t b) counts the stretches of training sequence,
from c_t's first place to its last, that hold b and c_t's bases at these distances. Places between them that are not
known (masked, N, beyond an end) are gaps: whatever stood there in training counts, so that what is masked weakens the
context and does not cut it off. An order-k model climbs until the stretch would have more than k + 1 places or more
than `MAX_GAPS` gaps.

At equal distance one flank has to come first. Both ways are read and their probabilities averaged, so that with counts
of both strands the reverse complement has exactly the complementary probabilities.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genossm.evaluation.markov import (
    UNKNOWN,
    ContextCounts,
    count_contexts,
    require_strengths,
    reverse_complement_codes,
)
from genossm.evaluation.markov_fit import Observed, require_known_bases, thinned, thinning, tune

logger = logging.getLogger(__name__)

# Counts of a context with g gaps are sums over 4^g words. On human sequence with 15 % masked, 4 instead of 2 gaps take
# another 0.02 bits per base off; a fifth would take 0.001 more.
MAX_GAPS = 4
_CHUNK = 1 << 15
_FLANKS = ("left", "right")


@dataclass(frozen=True, eq=False)
class TwoSidedMarkov:
    """An order-k model of both flanks: counts of words of up to k + 1 bases and a strength a rung of the ladder.

    counts: a word's bases before its last are its context in `ContextCounts`; here any base of it may be the target.
    strengths: a_0 to a_k.
    Raises: ValueError if there are not k + 1 strengths, or one is not positive.
    """

    counts: ContextCounts
    strengths: tuple[float, ...]

    def __post_init__(self) -> None:
        require_strengths(self.strengths, self.counts.order)

    @property
    def order(self) -> int:
        return self.counts.order

    @property
    def name(self) -> str:
        return f"two-sided order {self.order}"

    def log_probabilities_at(self, codes: NDArray[np.uint8], positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n, 4) natural log p of A, C, G, T at each of `positions` (n,), given the bases of `codes` (length,) around.

        codes: as `base_codes` gives them; UNKNOWN stands for whatever is not to be conditioned on.
        The base at a position itself is never looked at.
        Raises: IndexError for a position outside `codes`.
        """
        positions = np.asarray(positions, np.int64)
        if len(positions) and not (positions.min() >= 0 and positions.max() < len(codes)):
            raise IndexError(f"Positions {positions.min()} to {positions.max()} of a sequence of {len(codes)} bases.")
        result = np.empty((len(positions), 4))
        for start in range(0, len(positions), _CHUNK):
            chosen = positions[start : start + _CHUNK]
            readings = [self._probabilities(codes, chosen, flank) for flank in _FLANKS]
            result[start : start + _CHUNK] = np.log((readings[0] + readings[1]) / 2)
        return result

    def _probabilities(self, codes: NDArray[np.uint8], positions: NDArray[np.int64], first: str) -> NDArray[np.float64]:
        p = np.full((len(positions), 4), 0.25)
        for counts, strength in zip(flank_counts(self.counts, codes, positions, first=first), self.strengths):
            p = (counts + strength * p) / (counts.sum(axis=1, keepdims=True) + strength)
        return p


def fit_two_sided(
    train: Sequence[NDArray[np.uint8]], validation: Sequence[NDArray[np.uint8]], orders: Sequence[int]
) -> dict[int, TwoSidedMarkov]:
    """One model an order, counted on both strands of `train`, its strengths tuned on `validation` with whole flanks.

    Raises: ValueError if an order is outside 0..12 or no known base stands in `train` or `validation`.
    """
    if not orders:
        return {}
    require_known_bases(train, validation)
    return tune_two_sided(count_both_strands(train, max(orders)), validation, orders)


def count_both_strands(train: Sequence[NDArray[np.uint8]], order: int) -> ContextCounts:
    """Words of 1 to `order` + 1 known bases, on the sequences as they stand and on their reverse complements."""
    return count_contexts([*train, *(reverse_complement_codes(codes) for codes in train)], order)


def tune_two_sided(
    counts: ContextCounts,
    validation: Sequence[NDArray[np.uint8]],
    orders: Sequence[int],
    *,
    masked: Sequence[NDArray[np.bool_]] | None = None,
) -> dict[int, TwoSidedMarkov]:
    """One model an order, its strengths tuned jointly by coordinate descent on `validation`.

    masked: for each sequence which places (length,) are hidden and predicted; None predicts each base from whole
        flanks. Strengths that are best with whole flanks are not best where some of the flanks are masked.
    Raises: ValueError if no known base is to be predicted.
    """
    observed = _observe(counts, validation, masked)
    fitted = {}
    for order in sorted(set(orders)):
        strengths, bits = tune(observed, order)
        fitted[order] = TwoSidedMarkov(ContextCounts(counts.tables[: order + 1]), strengths)
        flanks = "whole flanks" if masked is None else "masked flanks"
        logger.info("Two-sided order %d: %.4f bits per base on validation, %s.", order, bits, flanks)
    return fitted


def flank_counts(
    counts: ContextCounts, codes: NDArray[np.uint8], positions: NDArray[np.int64], *, first: str
) -> Iterator[NDArray[np.float64]]:
    """For t = 0 .. order: (n, 4) counts of A, C, G, T among the t nearest known bases; 0 where the ladder has ended.

    first: the flank, "left" or "right", that goes first at equal distance.
    """
    order = counts.order
    padded = np.pad(codes, order, constant_values=UNKNOWN)
    places = positions + order
    left, right, climbing = _ladder(padded, places, order, first)
    for rung in range(order + 1):
        found = np.zeros((len(places), 4))
        shapes = left[:, rung] * (order + 1) + right[:, rung]
        for shape in np.unique(shapes[climbing[:, rung]]):
            rows = np.flatnonzero(climbing[:, rung] & (shapes == shape))
            found[rows] = _words(counts, padded, places[rows], *divmod(int(shape), order + 1))
        yield found


def _ladder(
    padded: NDArray[np.uint8], places: NDArray[np.int64], order: int, first: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """How far each rung's context reaches left and right (n, order + 1), and whether the ladder gets there."""
    signs = (-1, 1) if first == "left" else (1, -1)
    offsets = np.array([sign * distance for distance in range(1, order + 1) for sign in signs], np.int64)
    known = padded[places[:, None] + offsets] < UNKNOWN
    nearest = np.argsort(~known, axis=1, kind="stable")[:, :order]
    reached = offsets[nearest]
    start = np.zeros((len(places), 1), np.int64)
    left = np.maximum.accumulate(np.hstack([start, -reached]), axis=1)
    right = np.maximum.accumulate(np.hstack([start, reached]), axis=1)
    rungs = np.arange(order + 1)
    enough = rungs <= known.sum(axis=1, keepdims=True)
    span = left + right
    climbing = np.logical_and.accumulate(enough & (span <= order) & (span - rungs <= MAX_GAPS), axis=1)
    return left, right, climbing


def _words(
    counts: ContextCounts, padded: NDArray[np.uint8], places: NDArray[np.int64], left: int, right: int
) -> NDArray[np.float64]:
    """(n, 4) counts of the words from `left` places before to `right` after, each base in turn at the place itself."""
    length = left + 1 + right
    table = counts.tables[length - 1].reshape(-1)
    weights = 4 ** np.arange(length - 1, -1, -1, dtype=np.int64)
    letters = padded[places[:, None] + np.arange(-left, right + 1)]
    letters[:, left] = 0
    gaps = letters == UNKNOWN
    letters[gaps] = 0
    words = (letters @ weights)[:, None, None] + np.arange(4) * weights[left]
    found = np.empty((len(places), 4))
    patterns = gaps @ (1 << np.arange(length))
    for pattern in np.unique(patterns):
        rows = patterns == pattern
        fillings = _fillings([int(weights[i]) for i in range(length) if pattern >> i & 1])
        found[rows] = table[words[rows] + fillings[:, None]].sum(axis=1)
    return found


def _fillings(weights: Sequence[int]) -> NDArray[np.int64]:
    """What every choice of bases for the gaps adds to a word's number."""
    sums = np.zeros(1, np.int64)
    for weight in weights:
        sums = (sums[:, None] + np.arange(4) * weight).reshape(-1)
    return sums


def _observe(
    counts: ContextCounts, sequences: Sequence[NDArray[np.uint8]], masked: Sequence[NDArray[np.bool_]] | None
) -> Observed:
    """Both readings of every base that is to be predicted, as observations of their own."""
    hits: list[list[NDArray[np.float64]]] = [[] for _ in counts.tables]
    totals: list[list[NDArray[np.float64]]] = [[] for _ in counts.tables]
    targets = [codes < UNKNOWN for codes in sequences]
    if masked is not None:
        targets = [known & hidden for known, hidden in zip(targets, masked)]
    every = thinning(sum(int(scored.sum()) for scored in targets))
    for number, codes in enumerate(sequences):
        scored, read = thinned(targets[number], every), codes
        if masked is not None:
            read = np.where(masked[number], UNKNOWN, codes).astype(np.uint8)
        places = np.flatnonzero(scored)
        for start in range(0, len(places), _CHUNK):
            chosen = places[start : start + _CHUNK]
            bases = codes[chosen]
            for flank in _FLANKS:
                for rung, found in enumerate(flank_counts(counts, read, chosen, first=flank)):
                    hits[rung].append(found[np.arange(len(bases)), bases])
                    totals[rung].append(found.sum(axis=1))
    if not hits[0]:
        raise ValueError("The validation sequence holds no A, C, G or T to predict.")
    return Observed([np.concatenate(parts) for parts in hits], [np.concatenate(parts) for parts in totals])
