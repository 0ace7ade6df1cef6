"""Fit Markov models as strongly as fairly possible: strengths and strands chosen on the validation sequence."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genossm.evaluation.markov import (
    UNKNOWN,
    ContextCounts,
    MarkovModel,
    contexts,
    count_contexts,
    reverse_complement_codes,
)

logger = logging.getLogger(__name__)

# Strengths stay within 2^-4 to 2^12 pseudo-observations: beyond, an order is as good as unused or unsmoothed.
_FIRST_GRID = 2.0 ** np.arange(-4, 13)
_REFINING_FACTORS = (4.0, 2.0, 2.0**0.5)
# A dozen numbers are tuned; half a million bases fix them to well below a thousandth of a bit.
TUNING_PLACES = 1 << 19


def fit_markov_models(
    train: Sequence[NDArray[np.uint8]], validation: Sequence[NDArray[np.uint8]], orders: Sequence[int]
) -> dict[int, MarkovModel]:
    """One model an order, counted on `train`, its strengths tuned jointly by coordinate descent on `validation`.

    Each order is fitted on the sequence as it stands and on it with its reverse complement; the one with fewer bits
    on `validation` is kept.

    Raises: ValueError if an order is outside 0..12 or no known base stands in `train` or `validation`.
    """
    if not orders:
        return {}
    require_known_bases(train, validation)
    best: dict[int, tuple[float, MarkovModel]] = {}
    for both_strands in (False, True):
        strands = [*train, *(reverse_complement_codes(codes) for codes in train)] if both_strands else train
        counts = count_contexts(strands, max(orders))
        observed = _observe(counts, validation)
        for order in sorted(set(orders)):
            strengths, bits = tune(observed, order)
            if order not in best or bits < best[order][0]:
                tables = ContextCounts(counts.tables[: order + 1])
                best[order] = (bits, MarkovModel(tables, strengths, both_strands))
    for order, (bits, model) in best.items():
        strands = "both strands" if model.both_strands else "one strand"
        logger.info("Markov order %d: %.4f bits per base on validation, counted on %s.", order, bits, strands)
    return {order: model for order, (_, model) in best.items()}


def require_known_bases(train: Sequence[NDArray[np.uint8]], validation: Sequence[NDArray[np.uint8]]) -> None:
    """Raise ValueError if no known base stands in `train` or in `validation`."""
    for name, sequences in (("training", train), ("validation", validation)):
        if not any((codes < UNKNOWN).any() for codes in sequences):
            raise ValueError(f"The {name} sequence holds no A, C, G or T.")


class Observed:
    """What tuning needs of the validation sequence: counts of the base that came, and of its context, per order.

    hits, totals: one array an order, an entry an observation. Zero counts hand down the shorter context's probability
    unchanged, as a context that is too short must.
    """

    def __init__(self, hits: list[NDArray[np.float64]], totals: list[NDArray[np.float64]]) -> None:
        self.hits, self.totals = hits, totals

    def step(self, order: int, strength: float, shorter: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of the observed bases at `order`, from those at the order below."""
        return (self.hits[order] + strength * shorter) / (self.totals[order] + strength)

    def bits(self, p: NDArray[np.float64]) -> float:
        return float(-np.log2(p).mean())


def _observe(counts: ContextCounts, sequences: Sequence[NDArray[np.uint8]]) -> Observed:
    hits: list[list[NDArray[np.float64]]] = [[] for _ in counts.tables]
    totals: list[list[NDArray[np.float64]]] = [[] for _ in counts.tables]
    every = thinning(sum(int((codes < UNKNOWN).sum()) for codes in sequences))
    for codes in sequences:
        scored = thinned(codes < UNKNOWN, every)
        base = codes[scored]
        for order, (context, known) in enumerate(contexts(codes, counts.order)):
            rows = counts.tables[order][context[scored]]
            usable = known[scored]
            hits[order].append(np.where(usable, rows[np.arange(len(base)), base], 0).astype(np.float64))
            totals[order].append(np.where(usable, rows.sum(axis=1), 0).astype(np.float64))
    return Observed([np.concatenate(parts) for parts in hits], [np.concatenate(parts) for parts in totals])


def thinning(places: int) -> int:
    """Every how manieth of so many places is enough to tune on."""
    return max(1, places // TUNING_PLACES)


def thinned(scored: NDArray[np.bool_], every: int) -> NDArray[np.bool_]:
    """`scored`, of which every so manieth place is kept."""
    chosen = np.zeros_like(scored)
    chosen[np.flatnonzero(scored)[::every]] = True
    return chosen


def tune(observed: Observed, order: int) -> tuple[tuple[float, ...], float]:
    """Strengths that minimise bits per base at `order`: greedily upwards, then refined jointly."""
    strengths: list[float] = []
    p = np.full_like(observed.hits[0], 0.25)
    for j in range(order + 1):
        strengths.append(min(_FIRST_GRID, key=lambda a: observed.bits(observed.step(j, a, p))))
        p = observed.step(j, strengths[j], p)
    best = observed.bits(p)
    for factor in _REFINING_FACTORS:
        improved = True
        while improved:
            strengths, bits = _sweep(observed, strengths, factor)
            improved = bits < best - 1e-5
            best = bits
    return tuple(float(a) for a in strengths), best


def _sweep(observed: Observed, strengths: list[float], factor: float) -> tuple[list[float], float]:
    """Try each strength times and divided by `factor`, lowest order first, keeping what lowers the bits."""
    strengths = list(strengths)
    below = np.full_like(observed.hits[0], 0.25)
    best = np.inf
    for j in range(len(strengths)):
        steps = (strengths[j], strengths[j] * factor, strengths[j] / factor)
        candidates = [a for a in steps if _FIRST_GRID[0] <= a <= _FIRST_GRID[-1]]
        results = [(_bits_from(observed, strengths, j, a, below), a) for a in candidates]
        # Ties keep the present strength.
        best, strengths[j] = min(results, key=lambda result: result[0])
        below = observed.step(j, strengths[j], below)
    return strengths, float(best)


def _bits_from(
    observed: Observed, strengths: list[float], order: int, strength: float, below: NDArray[np.float64]
) -> float:
    p = observed.step(order, strength, below)
    for j in range(order + 1, len(strengths)):
        p = observed.step(j, strengths[j], p)
    return observed.bits(p)
