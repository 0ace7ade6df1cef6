"""Scores against labels: how well each number of each model tells classes apart, or follows a measurement.

An area above 0.5 is always an effect told the expected way round: a low log-likelihood ratio, or a large distance, in
class that has an effect. Correlations carry the sign that they have: a measurement says itself what good and bad are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

import genossm.genome
from genossm.core.errors import ConfigError, InputFileError
from genossm.core.strict import from_mapping, load_yaml
from genossm.evaluation.bootstrap import percentile_interval
from genossm.evaluation.labelled_scores import Progress, Scores
from genossm.evaluation.variant_auroc import block_weights, weighted_auroc
from genossm.variants import ScoringOptions
from genossm.variants.calibration import KINDS, allele_kind
from genossm.variants.heads.labelled import LabelColumn, Labelled, read_labelled
from genossm.variants.methods import LLR
from genossm.variants.options import DEFAULT_CONTEXT, DEFAULT_HORIZON

# Of two contigs' positions no two blocks may be one.
_APART = 1 << 40


@dataclass(frozen=True)
class LabelledSet:
    """A table or VCF of variants with something known of each.

    label: its column, or INFO key.   positive, at_least, at_most: which are the class with an effect (see
    `LabelColumn`); none of them: the label is a number to correlate with.   low_is_effect: the class is told by small
    labels: alleles of at most `at_most` are the class, those of at least `at_least` the others.
    effect_is: "low" or "high", where a measurement has its effect; "" for one that may go either way.
    compare: other columns to judge on the same alleles.   kinds: of "snv", "insertion", "deletion", "other", these
    alone: their scores differ in size.   block: bases of the bootstrap.
    sample: that many alleles drawn at random; 0 takes all.
    """

    name: str
    table: str
    reference: str
    label: str
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    low_is_effect: bool = False
    effect_is: Literal["low", "high", ""] = ""
    compare: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    block: int = 10_000
    sample: int = 0
    columns: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise ConfigError(f"kinds: got {unknown[0]!r}, wanted of {', '.join(KINDS)}.")

    @property
    def has_classes(self) -> bool:
        return bool(self.positive) or self.at_least is not None


@dataclass(frozen=True)
class LabelledConfig:
    """What is judged, and how.   methods: of them those that a model gives; none for its own.   context: bases."""

    sets: tuple[LabelledSet, ...]
    methods: tuple[str, ...] = ()
    context: int = DEFAULT_CONTEXT
    horizon: int | None = DEFAULT_HORIZON
    both_strands: bool = False
    replicates: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sets:
            raise ConfigError("sets is empty; wanted at least one set of labelled variants.")
        if self.replicates < 10:
            raise ConfigError(f"replicates is {self.replicates}; wanted at least 10.")

    @property
    def options(self) -> ScoringOptions:
        return ScoringOptions(self.context, self.horizon, self.both_strands, self.methods)


@dataclass(frozen=True)
class Figure:
    """One number of one model, or another column, on one set.   metric: "AUROC" or "Spearman".
    positives: alleles of the class with an effect; None for a measurement.
    """

    set_name: str
    model: str
    number: str
    metric: str
    value: float
    interval: tuple[float, float]
    alleles: int
    positives: int | None


@dataclass(frozen=True)
class SetResult:
    """left_out: alleles without a score, by reason."""

    figures: tuple[Figure, ...]
    left_out: Mapping[str, int]


def load_labelled_config(path: Path) -> LabelledConfig:
    """Paths in it are relative to the file. Raises: ConfigError; InputFileError."""
    config = from_mapping(LabelledConfig, load_yaml(path), where=str(path))
    sets = tuple(_relative(one, path.parent) for one in config.sets)
    return LabelledConfig(**{**config.__dict__, "sets": sets})


def judge(scores: Scores, one: LabelledSet, config: LabelledConfig, *, progress: Progress | None = None) -> SetResult:
    """Judge every number of a model or table on the alleles of a set that have all of them.

    Raises: InputFileError for labels or columns that are missing; what scoring raises.
    """
    rows = read_set(one, seed=config.seed)
    kept: list[Labelled] = []
    numbers: list[Sequence[float]] = []
    left_out = Counter[str]()
    for row, scored in zip(rows, scores.of(one.reference, [row.allele for row in rows], progress)):
        if scored.numbers is None:
            left_out[scored.status] += 1
        else:
            kept.append(row)
            numbers.append(scored.numbers)
    if not kept:
        raise InputFileError(f"{one.name}: none of {len(rows)} labelled alleles has a score ({dict(left_out)}).")
    with genossm.genome.open(one.reference) as genome:
        contigs = [genome.resolve(row.allele.contig) for row in kept]
    columns = {name: np.array(column, dtype=np.float64) for name, column in zip(scores.columns, zip(*numbers))}
    columns |= {key: _column(key, kept) for key in one.compare}
    places = _places(contigs, kept)
    figures = figures_of(one, scores.name, columns, np.array([row.label for row in kept]), places, config)
    return SetResult(figures, dict(left_out))


def read_set(one: LabelledSet, *, seed: int) -> list[Labelled]:
    """The labelled alleles of a set; 1 is the class with an effect."""
    label = LabelColumn(one.label, one.positive, one.at_least, one.at_most, one.negative)
    rows = read_labelled(
        Path(one.table), label, classes=one.has_classes, covariates=one.compare, columns=one.columns or None
    )
    if one.kinds:
        rows = [row for row in rows if allele_kind(row.allele.ref, row.allele.alt or "") in one.kinds]
    if one.low_is_effect:
        rows = [Labelled(row.allele, 1.0 - row.label, row.group, row.place) for row in rows]
    if one.sample and one.sample < len(rows):
        chosen = np.random.default_rng(seed).choice(len(rows), one.sample, replace=False)
        rows = [rows[number] for number in np.sort(chosen)]
    return rows


def figures_of(
    one: LabelledSet,
    model: str,
    columns: Mapping[str, NDArray[np.float64]],
    labels: NDArray[np.float64],
    places: NDArray[np.int64],
    config: LabelledConfig,
) -> tuple[Figure, ...]:
    """Every column against the labels, on the alleles that have all of the columns, by the same resamples."""
    known = np.all([np.isfinite(values) for values in columns.values()], axis=0)
    labels, places = labels[known], places[known]
    weights = block_weights(places, one.block, replicates=config.replicates, seed=config.seed)
    weights = np.concatenate([np.ones((1, len(labels))), weights])
    figures: list[Figure] = []
    for number, values in columns.items():
        shown, scores = (f"-{number}", -values[known]) if number == LLR.tags[0].name else (number, values[known])
        if one.has_classes:
            found, positives = weighted_auroc(scores, labels > 0.5, weights), int((labels > 0.5).sum())
        else:
            shown, positives = number, None
            found = weighted_spearman(values[known], labels, weights)
        usable = found[1:][np.isfinite(found[1:])]
        interval = percentile_interval(usable)
        metric = "AUROC" if one.has_classes else "Spearman"
        owner = "-" if number in one.compare else model
        figures.append(Figure(one.name, owner, shown, metric, float(found[0]), interval, len(labels), positives))
    return tuple(figures)


def weighted_spearman(
    values: NDArray[np.float64], labels: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(replicates,) rank correlations where allele i counts `weights[r, i]` times; ties share their mean rank; NaN
    where one side does not vary.
    """
    orders = [np.unique(side, return_inverse=True)[1] for side in (values, labels)]
    found = np.empty(len(weights))
    for replicate, weight in enumerate(weights):
        a, b = (_weighted_ranks(order, weight) for order in orders)
        total = weight.sum()
        if not total:
            found[replicate] = np.nan
            continue
        a, b = a - weight @ a / total, b - weight @ b / total
        spread = (weight @ a**2) * (weight @ b**2)
        found[replicate] = (weight * a) @ b / np.sqrt(spread) if spread > 0 else np.nan
    return found


def _weighted_ranks(order: NDArray[np.int64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each allele; `order` is its place among the distinct values."""
    counts = np.bincount(order, weights=weight)
    return (np.cumsum(counts) - (counts - 1) / 2)[order]


def _places(contigs: Sequence[str], rows: Sequence[Labelled]) -> NDArray[np.int64]:
    numbers = {contig: number for number, contig in enumerate(dict.fromkeys(contigs))}
    return np.array([numbers[contig] * _APART + row.allele.pos1 for contig, row in zip(contigs, rows)], dtype=np.int64)


def _column(key: str, rows: Sequence[Labelled]) -> NDArray[np.float64]:
    """A column as numbers, NaN where it says none."""

    def number(row: Labelled) -> float:
        try:
            return float(str((row.allele.covariates or {}).get(key)))
        except ValueError:
            return float("nan")

    return np.array([number(row) for row in rows])


def _relative(one: LabelledSet, folder: Path) -> LabelledSet:
    return LabelledSet(**{**one.__dict__, "table": str(folder / one.table), "reference": str(folder / one.reference)})
