"""Bits per base of a model beside Markov models, on exactly the same bases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genossm.core.atomic import refuse_overwrite
from genossm.core.errors import ConfigError
from genossm.core.provenance import Provenance
from genossm.data.regions import Splits
from genossm.evaluation.bases_report import BasesReport, Difference, MethodBits, write_report
from genossm.evaluation.bootstrap import block_bootstrap, percentile_interval
from genossm.evaluation.leaks import refuse_learnt_regions
from genossm.evaluation.likelihood import base_log_probabilities
from genossm.evaluation.markov import UNKNOWN, MarkovModel, base_codes
from genossm.evaluation.markov_fit import fit_markov_models
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome
    from genossm.models import SequenceModel

MODEL_NAME = "model"
BLOCK = 10_000


def evaluate_bases(
    model: SequenceModel,
    genome: Genome,
    splits: Splits,
    *,
    orders: Sequence[int],
    context: int | None,
    block: int = BLOCK,
    replicates: int = 2000,
    seed: int = 0,
) -> BasesReport:
    """Measure `model` on the test regions beside Markov models counted on train and tuned on validation.

    orders: of the Markov models.   context: bases a window, None for one pass; see `base_log_probabilities`.
    block: bases; the unit of the bootstrap and of the values along the sequence.
    Raises: ConfigError if a region is missing or an order is impossible; MethodError for a model that is not causal.
    """
    if not splits.test:
        raise ConfigError("No test region was given, so there is nothing to judge on.")
    markov = fit_on_splits(genome, splits, orders)
    names = [MODEL_NAME, *(m.name for m in markov.values())]
    places: list[tuple[str, int]] = []
    sums: list[NDArray[np.float64]] = []
    counts: list[int] = []
    for region in splits.test:
        nats, scored = _score_region(model, list(markov.values()), genome, region, context)
        for start in range(0, len(region), block):
            places.append((region.contig, region.start + start))
            sums.append(-nats[:, start : start + block].sum(axis=1) / math.log(2.0))
            counts.append(int(scored[start : start + block].sum()))
    return _report(
        splits, context, names, _details(model, markov), places, np.stack(sums), np.array(counts), replicates, seed
    )


def fit_on_splits(genome: Genome, splits: Splits, orders: Sequence[int]) -> dict[int, MarkovModel]:
    """Markov models of these orders, counted on the training regions and tuned on the validation regions.

    Raises: ConfigError for an order outside 0..12 or regions without a known base.
    """
    train, validation = (
        [base_codes(genome.fetch_array(region)) for region in regions] for regions in (splits.train, splits.validation)
    )
    try:
        return fit_markov_models(train, validation, orders)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def run_evaluate_bases(
    model_path: str,
    genome_path: str,
    *,
    train: Sequence[str],
    validation: Sequence[str],
    test: Sequence[str],
    orders: Sequence[int],
    context: int | None,
    output: Path,
    block: int = BLOCK,
    seed: int = 0,
    device: str | None = None,
    force: bool = False,
) -> BasesReport:
    """Open, measure, write: what `genossm evaluate bases` does.

    Raises: as `evaluate_bases`; ConfigError besides if the model itself was trained or tuned on a test region.
    """
    import genossm.genome
    from genossm.models import load

    refuse_overwrite(output, force=force)
    with genossm.genome.open(genome_path) as genome:
        splits = Splits.parse(genome, train, validation, test)
        refuse_learnt_regions(Path(model_path), genome, splits.test)
        model = load(model_path, device=device)
        report = evaluate_bases(model, genome, splits, orders=orders, context=context, block=block, seed=seed)
        provenance = Provenance(seed=seed, model_digest=model.digest(), reference_digest=genome.reference_digest)
        write_report(report, output, provenance=provenance, force=force)
    return report


def _score_region(
    model: SequenceModel, markov: list[MarkovModel], genome: Genome, region: Interval, context: int | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """ln p of each base (methods, length), 0 where it is not scored, and which are scored."""
    values, scored = base_log_probabilities(model, genome, region, context=context)
    rows = [values]
    if markov:
        before = min(region.start, max(m.order for m in markov))
        codes = base_codes(genome.fetch_array(Interval(region.contig, region.start - before, region.end)))
        scored = scored & (codes[before:] < UNKNOWN)
        rows += [m.log_probabilities(codes)[before:] for m in markov]
    return np.where(scored, np.stack(rows), 0.0), scored


def _report(
    splits: Splits,
    context: int | None,
    names: list[str],
    details: list[dict[str, Any]],
    places: list[tuple[str, int]],
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
    replicates: int,
    seed: int,
) -> BasesReport:
    total = int(counts.sum())
    if not total:
        raise ConfigError("The test regions hold no A, C, G or T to score. Choose other regions.")
    resampled = block_bootstrap(sums, counts, replicates=replicates, seed=seed)
    bits = sums.sum(axis=0) / total
    methods = tuple(
        MethodBits(name, float(bits[i]), percentile_interval(resampled[:, i]), details[i])
        for i, name in enumerate(names)
    )
    differences = tuple(
        Difference(name, float(bits[0] - bits[i]), percentile_interval(resampled[:, 0] - resampled[:, i]))
        for i, name in enumerate(names)
        if i
    )
    block_bits = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.nan)
    return BasesReport(splits, context, total, methods, differences, tuple(places), counts, block_bits)


def _details(model: SequenceModel, markov: dict[int, MarkovModel]) -> list[dict[str, Any]]:
    described: list[dict[str, Any]] = [{"kind": "model", "parameters": model.num_parameters()}]
    for order, baseline in markov.items():
        described.append(
            {
                "kind": "markov",
                "order": order,
                "strands": "both" if baseline.both_strands else "one",
                "strengths": list(baseline.strengths),
            }
        )
    return described
