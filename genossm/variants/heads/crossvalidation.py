"""Nested cross-validation over groups of neighbouring alleles: inner folds choose the penalty, outer folds judge.

Alleles near one another share their haplotypes and the bases that their hidden states are made of. A fold is therefore
made of whole stretches, and what stands within a gap of a tested allele is left out of its training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import InputFileError
from genossm.variants.heads.estimators import STRENGTHS, Kind, Linear, fit_linear

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Examples:
    """features: (alleles, features).   ratios: (alleles,) of the model alone.   labels: (alleles,).
    groups: number of each allele's stretch.
    contigs, positions: where each stands.   gap: bases that have to lie between training and test.
    """

    features: NDArray[np.float64]
    ratios: NDArray[np.float64]
    labels: NDArray[np.float64]
    groups: NDArray[np.int64]
    contigs: NDArray[np.int64]
    positions: NDArray[np.int64]
    gap: int

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What nested cross-validation found.

    metric: "AUROC" or "Spearman".   value, interval: of the outer predictions; 95 %, by drawing whole stretches.
    alone: the same metric of the model's own ratio, on the same alleles.
    folds: of the outer loop, each its metric and the strength that its inner folds chose.
    """

    metric: str
    value: float
    interval: tuple[float, float]
    alone: float
    folds: tuple[tuple[float, float], ...]
    alleles: int
    stretches: int


def nested_cross_validation(
    kind: Kind, examples: Examples, *, outer: int = 5, inner: int = 4, replicates: int = 1000, seed: int = 0
) -> tuple[CrossValidation, Linear]:
    """The figure by outer folds, and the head fitted on all alleles with the strength that folds of all of them choose.

    Raises: InputFileError for fewer stretches than folds, or a class that a fold lacks.
    """
    metric = metric_of(kind)
    predictions = np.full(len(examples), np.nan)
    folds: list[tuple[float, float]] = []
    for train, test in split(examples, np.arange(len(examples)), outer, seed):
        strength = _choose(kind, examples, train, inner, seed)
        head = fit_linear(kind, examples.features[train], examples.labels[train], strength)
        predictions[test] = head.predict(examples.features[test])
        folds.append((metric(predictions[test], examples.labels[test]), strength))
    # Each fold's model has its own scale: what is pooled is the rank within the fold.
    pooled = _ranked_within(predictions, split(examples, np.arange(len(examples)), outer, seed))
    everything = np.arange(len(examples))
    strength = _choose(kind, examples, everything, inner, seed)
    found = CrossValidation(
        metric_name(kind),
        metric(pooled, examples.labels),
        drawn_interval(metric, pooled, examples.labels, examples.groups, replicates=replicates, seed=seed),
        metric(examples.ratios, examples.labels),
        tuple(folds),
        len(examples),
        len(np.unique(examples.groups)),
    )
    return found, fit_linear(kind, examples.features, examples.labels, strength)


def split(examples: Examples, rows: Rows, folds: int, seed: int) -> Iterator[tuple[Rows, Rows]]:
    """(training, test) rows of each fold: whole stretches, drawn at random into folds of like size.

    Raises: InputFileError for fewer stretches than folds, or a fold with nothing to learn from.
    """
    names, sizes = np.unique(examples.groups[rows], return_counts=True)
    if len(names) < folds:
        raise InputFileError(
            f"The alleles lie in {len(names)} stretches, too few for {folds} folds. Take shorter ones (--block), name "
            "groups of your own (--group COLUMN), or bring alleles of more places."
        )
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled, fold_of = np.zeros(folds), np.zeros(len(names), dtype=np.int64)
    for one in order:
        fold_of[one] = int(np.argmin(filled))
        filled[fold_of[one]] += sizes[one]
    fold = fold_of[np.searchsorted(names, examples.groups[rows])]
    for number in range(folds):
        test = rows[fold == number]
        train = rows[fold != number]
        train = train[~_near(examples, train, test)]
        if not len(train) or len(np.unique(examples.labels[train])) < 2:
            raise InputFileError(
                "A fold learns from alleles of one class alone. Take shorter stretches (--block), or more alleles."
            )
        yield train, test


def _near(examples: Examples, rows: Rows, test: Rows) -> NDArray[np.bool_]:
    """Which rows stand within the gap of a tested allele."""
    close = np.zeros(len(rows), dtype=bool)
    for contig in np.unique(examples.contigs[test]):
        places = np.sort(examples.positions[test[examples.contigs[test] == contig]])
        here = examples.contigs[rows] == contig
        wanted = examples.positions[rows[here]]
        after = np.searchsorted(places, wanted)
        right = np.abs(places[np.clip(after, None, len(places) - 1)] - wanted)
        left = np.abs(wanted - places[np.clip(after - 1, 0, None)])
        close[here] = np.minimum(left, right) < examples.gap
    return close


def _choose(kind: Kind, examples: Examples, rows: Rows, folds: int, seed: int) -> float:
    """The strength with the best mean over the folds of `rows`; the stronger one where two are alike."""
    metric = metric_of(kind)
    totals = dict.fromkeys(sorted(STRENGTHS, reverse=True), 0.0)
    for train, test in split(examples, rows, folds, seed + 1):
        for strength in totals:
            head = fit_linear(kind, examples.features[train], examples.labels[train], strength)
            value = metric(head.predict(examples.features[test]), examples.labels[test])
            totals[strength] += 0.0 if np.isnan(value) else value
    return max(totals, key=lambda strength: totals[strength])


def metric_name(kind: Kind) -> str:
    return "Spearman" if kind == "ridge" else "AUROC"


def metric_of(kind: Kind) -> Callable[[NDArray[np.float64], NDArray[np.float64]], float]:
    """(predictions, labels) to a number; NaN where there is nothing to tell apart."""
    return _spearman if kind == "ridge" else _auroc


def _auroc(values: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    positive = labels > 0.5
    pairs = positive.sum() * (~positive).sum()
    if not pairs:
        return float("nan")
    ranks = _ranks(values)
    return float((ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2) / pairs)


def _spearman(values: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    a, b = _ranks(values), _ranks(labels)
    if len(a) < 2 or not a.std() or not b.std():
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _ranked_within(predictions: NDArray[np.float64], folds: Iterator[tuple[Rows, Rows]]) -> NDArray[np.float64]:
    pooled = np.empty_like(predictions)
    for _, test in folds:
        pooled[test] = _ranks(predictions[test]) / (len(test) + 1)
    return pooled


def drawn_interval(
    metric: Callable[[NDArray[np.float64], NDArray[np.float64]], float],
    predictions: NDArray[np.float64],
    labels: NDArray[np.float64],
    groups: NDArray[np.int64],
    *,
    replicates: int,
    seed: int,
) -> tuple[float, float]:
    """95 % of the metric's values when whole groups are drawn with replacement."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    found = []
    for _ in range(replicates):
        rows = np.concatenate([members[number] for number in rng.integers(len(members), size=len(members))])
        found.append(metric(predictions[rows], labels[rows]))
    known = np.array(found)[np.isfinite(found)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)
