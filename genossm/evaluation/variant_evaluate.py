"""Scores of a region's variants beside allele frequency, and beside a Markov model's scores of the same alleles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import genossm.genome
from genossm.core.atomic import refuse_overwrite
from genossm.core.errors import ConfigError
from genossm.core.provenance import Provenance
from genossm.data.regions import parse_regions, refuse_overlaps
from genossm.evaluation.variant_alleles import ScoredRegion, read_scored
from genossm.evaluation.variant_baseline import Baseline, baseline_ratios, best_baseline
from genossm.evaluation.variant_frequency import FrequencyResult, compare_by_frequency
from genossm.evaluation.variant_report import MODEL_NAME, Protocol, VariantsReport, write_report
from genossm.genome import Genome

BLOCK = 10_000
REPLICATES = 2000


def run_evaluate_variants(
    scored_path: Path,
    genome_path: str,
    *,
    region: str,
    markov_train: Sequence[str],
    markov_validation: Sequence[str] = (),
    orders: Sequence[int] | None = None,
    output: Path,
    block: int = BLOCK,
    replicates: int = REPLICATES,
    seed: int = 0,
    force: bool = False,
) -> VariantsReport:
    """Open, measure, write: what `genossm evaluate variants` does.

    markov_train: regions that the count tables are counted on; none: no comparison.   orders: None for the usual ones;
    the one with the fewest bits per base on the validation regions is compared.
    Raises: as `evaluate_variants`; OutputExistsError.
    """
    refuse_overwrite(output, force=force)
    with genossm.genome.open(genome_path) as genome:
        (judged,) = parse_regions(genome, [region])
        train, validation = parse_regions(genome, markov_train), parse_regions(genome, markov_validation)
        refuse_overlaps({"region": [judged], "markov_train": train, "markov_validation": validation})
        scored = read_scored(scored_path, genome, judged)
        baseline = best_baseline(genome, train, validation, orders, scored.method) if train else None
        protocol = Protocol(judged, train, validation, block, replicates, seed)
        report = evaluate_variants(scored, genome, baseline, protocol)
        provenance = Provenance(seed=seed, model_digest=scored.model_digest, reference_digest=genome.reference_digest)
        write_report(report, output, provenance=provenance, force=force)
    return report


def evaluate_variants(
    scored: ScoredRegion, genome: Genome, baseline: Baseline | None, protocol: Protocol
) -> VariantsReport:
    """Compare the file's scores with the baseline's on the same alleles, for substitutions of one base and for all.

    Raises: ConfigError if the region holds no scored allele with a frequency.
    """
    alleles = scored.alleles
    if not alleles:
        raise ConfigError(
            f"{protocol.region} holds no scored allele with INFO/AF ({scored.without_frequency:,} without, "
            f"{sum(scored.unscored.values()):,} unscored). Check the region, and that the VCF has allele frequencies."
        )
    scores = {MODEL_NAME: np.array([allele.llr for allele in alleles])}
    if baseline is not None:
        variants = [allele.variant for allele in alleles]
        scores[baseline.name] = baseline_ratios(baseline, genome, variants, scored.options)
    frequencies = np.array([allele.frequency for allele in alleles])
    positions = np.array([allele.variant.start0 for allele in alleles])
    single = np.array([allele.variant.is_snv for allele in alleles])
    results: list[FrequencyResult] = []
    for kind, chosen in (("SNV", single), ("all", np.ones(len(alleles), bool))):
        results.append(
            compare_by_frequency(
                kind,
                {name: values[chosen] for name, values in scores.items()},
                frequencies[chosen],
                positions[chosen],
                block=protocol.block,
                replicates=protocol.replicates,
                seed=protocol.seed,
            )
        )
    return VariantsReport(protocol, scored, tuple(results))
