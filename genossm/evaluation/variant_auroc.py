"""Area under the ROC curve, ties counting half, with intervals that know that neighbours on a chromosome are alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genossm.evaluation.bootstrap import FEWEST_BLOCKS

_CHUNK = 128


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Probability that a positive scores above a negative, ties counting half; NaN without one of either.

    scores, positive: (alleles,).   Source: Mann & Whitney 1947; Hanley & McNeil 1982.
    """
    return float(weighted_auroc(scores, positive, np.ones((1, len(scores))))[0])


def weighted_auroc(
    scores: NDArray[np.float64], positive: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(replicates,) areas where allele i counts `weights[r, i]` times; NaN where one side weighs nothing."""
    if not len(scores):
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    ranked, is_positive = scores[order], positive[order]
    ties = np.flatnonzero(np.diff(ranked, prepend=-np.inf) != 0)
    areas = np.empty(len(weights))
    for start in range(0, len(weights), _CHUNK):
        drawn = weights[start : start + _CHUNK][:, order]
        above = np.add.reduceat(drawn * is_positive, ties, axis=1)
        below = np.add.reduceat(drawn * ~is_positive, ties, axis=1)
        won = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
        pairs = above.sum(axis=1) * below.sum(axis=1)
        areas[start : start + _CHUNK] = np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
    return areas


@dataclass(frozen=True, eq=False)
class RocCurve:
    """Share of negatives and of positives at or above a threshold that falls from point to point."""

    false_positive: NDArray[np.float64]
    true_positive: NDArray[np.float64]


def roc_curve(scores: NDArray[np.float64], positive: NDArray[np.bool_], *, points: int = 101) -> RocCurve:
    """The curve, thinned to `points` false-positive rates by linear interpolation between its corners."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    true_positive = np.concatenate([[0.0], np.cumsum(positive[order])[last_of_tie] / positive.sum()])
    false_positive = np.concatenate([[0.0], np.cumsum(~positive[order])[last_of_tie] / (~positive).sum()])
    grid = np.linspace(0.0, 1.0, points)
    # Vertical steps share one abscissa, of which interpolation takes the last: the upper end.
    return RocCurve(grid, np.interp(grid, false_positive, true_positive))


def block_weights(positions: NDArray[np.int64], block: int, *, replicates: int, seed: int) -> NDArray[np.float64]:
    """(replicates, alleles) how often each is drawn when whole blocks of `block` bases are drawn with replacement.

    Alleles within a block share their haplotypes and their windows, so single ones would understate the spread.
    Blocks without an allele are no blocks; with fewer than FEWEST_BLOCKS all is NaN.
    Source: Künsch 1989, with blocks that do not overlap (Carlstein 1986).
    """
    _, number = np.unique(positions // block, return_inverse=True)
    blocks = int(number.max()) + 1 if len(number) else 0
    if not blocks:
        return np.zeros((replicates, 0))
    if blocks < FEWEST_BLOCKS:
        return np.full((replicates, len(number)), np.nan)
    draws = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1.0 / blocks), size=replicates)
    return draws[:, number].astype(np.float64)
