"""Scores beside allele frequency: by bins, and how well they tell common alleles from rare ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genossm.evaluation.bootstrap import percentile_interval
from genossm.evaluation.variant_auroc import RocCurve, block_weights, roc_curve, weighted_auroc

COMMON, RARE = 0.05, 0.002
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Right ends belong to a bin, but for the one that ends where common alleles begin.
BINS: tuple[tuple[str, float, float], ...] = (
    ("≤ 0.2 %", -np.inf, RARE),
    ("0.2-1 %", RARE, 0.01),
    ("1-5 %", 0.01, np.nextafter(COMMON, 0.0)),
    ("5-20 %", np.nextafter(COMMON, 0.0), 0.2),
    ("20-50 %", 0.2, 0.5),
    ("> 50 %", 0.5, np.inf),
)


@dataclass(frozen=True)
class BinScores:
    """Scores of one frequency bin; None where it is empty.   quantiles: at 5, 25, 50, 75 and 95 %."""

    label: str
    count: int
    mean: float | None
    quantiles: tuple[float, ...] | None


@dataclass(frozen=True, eq=False)
class Separation:
    """How well one method's score tells common from rare alleles; an area above 0.5 favours common ones."""

    auroc: float
    interval: tuple[float, float]
    curve: RocCurve


@dataclass(frozen=True)
class AreaDifference:
    """The first method's area minus another's, on the same alleles and the same resamples."""

    method: str
    auroc: float
    interval: tuple[float, float]


@dataclass(frozen=True, eq=False)
class FrequencyResult:
    """One kind of alleles.   separations: None without a common or a rare allele.   bins: by method."""

    kind: str
    alleles: int
    common: int
    rare: int
    bins: Mapping[str, tuple[BinScores, ...]]
    separations: Mapping[str, Separation] | None
    differences: tuple[AreaDifference, ...]


def score_bins(scores: NDArray[np.float64], frequencies: NDArray[np.float64]) -> tuple[BinScores, ...]:
    """Count, mean and quantiles of the scores in every frequency bin."""
    result = []
    for label, low, high in BINS:
        inside = scores[(frequencies > low) & (frequencies <= high)]
        if len(inside):
            quantiles = tuple(float(q) for q in np.quantile(inside, QUANTILES))
            result.append(BinScores(label, len(inside), float(inside.mean()), quantiles))
        else:
            result.append(BinScores(label, 0, None, None))
    return tuple(result)


def compare_by_frequency(
    kind: str,
    scores: Mapping[str, NDArray[np.float64]],
    frequencies: NDArray[np.float64],
    positions: NDArray[np.int64],
    *,
    block: int,
    replicates: int,
    seed: int,
) -> FrequencyResult:
    """Bins and separation of every method on the same alleles.

    scores: method to (alleles,); the first method is the one that the others are subtracted from.
    frequencies: of ALT (alleles,).   positions: on one contig (alleles,), for the block bootstrap.
    """
    common, rare = frequencies >= COMMON, frequencies <= RARE
    judged = common | rare
    bins = {name: score_bins(values, frequencies) for name, values in scores.items()}
    counts = int(common.sum()), int(rare.sum())
    if not all(counts):
        return FrequencyResult(kind, len(frequencies), *counts, bins, None, ())
    positive = common[judged]
    weights = block_weights(positions[judged], block, replicates=replicates, seed=seed)
    # The first row is the sample itself.
    weights = np.concatenate([np.ones((1, len(positive))), weights])
    areas = {name: weighted_auroc(values[judged], positive, weights) for name, values in scores.items()}
    separations = {
        name: Separation(float(area[0]), _interval(area[1:]), roc_curve(scores[name][judged], positive))
        for name, area in areas.items()
    }
    first, *others = areas.values()
    differences = tuple(
        AreaDifference(name, float(first[0] - area[0]), _interval(first[1:] - area[1:]))
        for name, area in zip(list(areas)[1:], others)
    )
    return FrequencyResult(kind, len(frequencies), *counts, bins, separations, differences)


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % of the replicates that drew both common and rare alleles."""
    return percentile_interval(values[~np.isnan(values)])
