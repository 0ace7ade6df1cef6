"""Order-k Markov models of DNA: the baseline that a sequence model has to beat.

An order-k model is an interpolation down to order 0 and the uniform distribution, one strength `a_j` an order:

    p_j(b | c_j) = (n_j(c_j b) + a_j p_{j-1}(b | c_{j-1})) / (n_j(c_j) + a_j),      p_{-1}(b) = 1/4,

where `c_j` are the j bases before, `n_j(c_j b)` counts how often b followed them in the training sequence and
`n_j(c_j)` sums that over b. It is the predictive mean under a Dirichlet prior centred on the shorter context
(MacKay & Peto 1995). A base that fewer than k known bases precede (a contig's start, after an N) is predicted
from as many as there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numba import njit
from numpy.typing import NDArray

MAX_ORDER = 12
UNKNOWN = 4
_CHUNK = 1 << 18

_CODE_OF_LETTER = np.full(256, UNKNOWN, np.uint8)
for _code, _letter in enumerate(b"ACGT"):
    _CODE_OF_LETTER[_letter] = _CODE_OF_LETTER[_letter + 32] = _code


def base_codes(sequence: bytes | str | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """0..3 for A, C, G, T in either case, 4 for any other letter; an array holds ASCII codes."""
    if isinstance(sequence, str):
        sequence = sequence.encode("ascii")
    letters = np.frombuffer(sequence, np.uint8) if isinstance(sequence, bytes) else sequence
    return _CODE_OF_LETTER[letters]


def reverse_complement_codes(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The other strand; unknown stays unknown."""
    return np.where(codes < UNKNOWN, 3 - codes, codes)[::-1].astype(np.uint8)


@dataclass(frozen=True, eq=False)
class ContextCounts:
    """`tables[j][c, b]`: how often base b followed context c of j bases; the nearest base is c's lowest digit."""

    tables: tuple[NDArray[np.uint32], ...]

    @property
    def order(self) -> int:
        return len(self.tables) - 1


def count_contexts(sequences: Sequence[NDArray[np.uint8]], order: int) -> ContextCounts:
    """Count every base after its 0, 1, ..., `order` known predecessors within each sequence of codes.

    Memory is 16 bytes times 4^order (21 MB at order 10, 358 MB at 12, lower orders included).
    Raises: ValueError if the order is not within 0..12.
    """
    if not 0 <= order <= MAX_ORDER:
        raise ValueError(f"A Markov order must be within 0..{MAX_ORDER}, got {order}.")
    starts = np.cumsum([0, *(4 ** (j + 1) for j in range(order + 1))])
    counts = np.zeros(starts[-1], np.uint32)
    for codes in sequences:
        _count_longest(codes, order, starts, counts)
    tables = [counts[first:last] for first, last in pairwise(starts)]
    for shorter, longer in zip(tables[-2::-1], tables[:0:-1]):
        # The base farthest away is a context's highest digit.
        shorter += longer.reshape(4, -1).sum(axis=0, dtype=np.uint32)
    return ContextCounts(tuple(table.reshape(-1, 4) for table in tables))


@njit(nogil=True)
def _count_longest(codes: NDArray[np.uint8], order: int, starts: NDArray[np.int64], counts: NDArray[np.uint32]) -> None:
    """Count each known base once, after its longest context of up to `order` known bases."""
    mask = (1 << (2 * order)) - 1
    context, known = 0, 0
    for code in codes:
        if code >= UNKNOWN:
            context, known = 0, 0
            continue
        counts[starts[known] + context * 4 + code] += np.uint32(1)
        context = (context * 4 + code) & mask
        known = min(known + 1, order)


def contexts(codes: NDArray[np.uint8], order: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """For each order 0..`order`: the code of the bases before every position, and whether they are all known."""
    context = np.zeros(len(codes), np.int64)
    known = np.ones(len(codes), bool)
    yield context, known
    for back in range(1, order + 1):
        before = codes[:-back]
        context, known = context.copy(), known.copy()
        context[back:] += np.where(before < UNKNOWN, before, 0).astype(np.int64) << (2 * (back - 1))
        known[back:] &= before < UNKNOWN
        known[:back] = False
        yield context, known


def require_strengths(strengths: Sequence[float], order: int) -> None:
    """Raise ValueError unless there is one positive interpolation strength for each order 0..`order`."""
    if len(strengths) != order + 1:
        raise ValueError(f"{len(strengths)} strengths for {order + 1} orders.")
    if min(strengths) <= 0:
        raise ValueError(f"Interpolation strengths must be positive, got {strengths}.")


@dataclass(frozen=True, eq=False)
class MarkovModel:
    """An order-k model: counts and the interpolation strength of each order 0..k."""

    counts: ContextCounts
    strengths: tuple[float, ...]
    both_strands: bool = True

    def __post_init__(self) -> None:
        require_strengths(self.strengths, self.counts.order)

    @property
    def order(self) -> int:
        return self.counts.order

    @property
    def name(self) -> str:
        return f"Markov order {self.order}"

    def distributions(self, codes: NDArray[np.uint8], *, seen: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """(length, 4) probabilities of A, C, G, T at each position given the bases before it in `codes`.

        seen: (length,) how many of these a position may look at; None: all.
        """
        result = np.empty((len(codes), 4))
        for start in range(0, len(codes), _CHUNK):
            first = max(0, start - self.order)
            piece = slice(first, start + _CHUNK)
            found = self._distributions_of_piece(codes[piece], None if seen is None else seen[piece])
            result[start : start + _CHUNK] = found[start - first :]
        return result

    def _distributions_of_piece(self, codes: NDArray[np.uint8], seen: NDArray[np.int64] | None) -> NDArray[np.float64]:
        p = np.full((len(codes), 4), 0.25)
        orders = zip(self.counts.tables, self.strengths, contexts(codes, self.order))
        for order, (table, strength, (context, known)) in enumerate(orders):
            counts = table[context]
            longer = (counts + strength * p) / (counts.sum(axis=1, keepdims=True) + strength)
            usable = known if seen is None else known & (seen >= order)
            p = np.where(usable[:, None], longer, p)
        return p

    def log_probabilities(
        self, codes: NDArray[np.uint8], *, seen: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """(length,) natural log p of each base given the bases before it; 0 where the base itself is unknown.

        seen: as for `distributions`.
        """
        p = self.distributions(codes, seen=seen)
        chosen = np.take_along_axis(p, np.minimum(codes, 3)[:, None].astype(np.int64), axis=1)[:, 0]
        return np.where(codes < UNKNOWN, np.log(chosen), 0.0)

    def log_likelihood_ratio(
        self, before: NDArray[np.uint8], reference: NDArray[np.uint8], alternative: NDArray[np.uint8]
    ) -> float:
        """Σ ln p(alternative) − Σ ln p(reference), both after the same bases `before`, in nats.

        The causal score of a variant on one strand: `reference` and `alternative` hold the same number of bases of
        either haplotype from their first difference on. Exact once `before` holds the `order` bases before that.

        Raises: ValueError if the two haplotypes differ in length, since length itself would then be scored.
        """
        if len(reference) != len(alternative):
            raise ValueError(f"Haplotypes of {len(reference)} and {len(alternative)} bases cannot be compared.")
        context = before[max(0, len(before) - self.order) :]
        total = 0.0
        for haplotype, sign in ((alternative, 1.0), (reference, -1.0)):
            values = self.log_probabilities(np.concatenate([context, haplotype]))
            total += sign * float(values[len(context) :].sum())
        return total
