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
from genossm.evaluation.markov import UNKNOWN, MarkovModel, base_codes
from genossm.evaluation.markov_fit import fit_markov_models
from genossm.evaluation.variant_alleles import ScoredRegion, read_scored
from genossm.evaluation.variant_frequency import FrequencyResult, compare_by_frequency
from genossm.evaluation.variant_markov import markov_ratios
from genossm.evaluation.variant_report import MODEL_NAME, Protocol, VariantsReport, write_report
from genossm.genome import Genome
from genossm.sequence import Interval
from genossm.variants.methods import LLR

ORDERS = (0, 3, 8, 11)
BLOCK = 10_000
REPLICATES = 2000
# Without validation regions the last tenth of every training region tunes the Markov models.
_TUNING_SHARE = 10


def run_evaluate_variants(
    scored_path: Path,
    genome_path: str,
    *,
    region: str,
    markov_train: Sequence[str],
    markov_validation: Sequence[str] = (),
    orders: Sequence[int] = ORDERS,
    output: Path,
    block: int = BLOCK,
    replicates: int = REPLICATES,
    seed: int = 0,
    force: bool = False,
) -> VariantsReport:
    """Open, measure, write: what `genossm evaluate variants` does.

    markov_train: regions that the Markov models are counted on; none: no comparison.   orders: of which the one with
    the fewest bits per base on the validation regions is compared.
    Raises: as `evaluate_variants`; OutputExistsError.
    """
    refuse_overwrite(output, force=force)
    with genossm.genome.open(genome_path) as genome:
        (judged,) = parse_regions(genome, [region])
        train, validation = parse_regions(genome, markov_train), parse_regions(genome, markov_validation)
        refuse_overlaps({"region": [judged], "markov_train": train, "markov_validation": validation})
        scored = read_scored(scored_path, genome, judged)
        if train and scored.options.methods != (LLR.name,):
            raise ConfigError(
                "Markov models of preceding bases are no match for masked scores. Leave --markov-train out."
            )
        baseline = best_markov(genome, train, validation, orders) if train else None
        protocol = Protocol(judged, train, validation, block, replicates, seed)
        report = evaluate_variants(scored, genome, baseline, protocol)
        provenance = Provenance(seed=seed, model_digest=scored.model_digest, reference_digest=genome.reference_digest)
        write_report(report, output, provenance=provenance, force=force)
    return report


def evaluate_variants(
    scored: ScoredRegion, genome: Genome, baseline: MarkovModel | None, protocol: Protocol
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
        scores[baseline.name] = markov_ratios(baseline, genome, variants, scored.options)
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


def best_markov(
    genome: Genome, train: Sequence[Interval], validation: Sequence[Interval], orders: Sequence[int]
) -> MarkovModel:
    """The Markov model of the order with the fewest bits per base on `validation`.

    validation: where empty, the last tenth of each training region, which is then not counted.
    Raises: ConfigError for an order outside 0..12, none at all, or regions without a known base.
    """
    if not validation:
        cuts = [region.end - max(1, len(region) // _TUNING_SHARE) for region in train]
        validation = [Interval(region.contig, cut, region.end) for region, cut in zip(train, cuts)]
        train = [Interval(region.contig, region.start, cut) for region, cut in zip(train, cuts) if cut > region.start]
    counted, tuned = ([base_codes(genome.fetch_array(region)) for region in regions] for regions in (train, validation))
    try:
        models = fit_markov_models(counted, tuned, orders)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not models:
        raise ConfigError("No order of a Markov model was given; wanted at least one of 0 to 12.")

    def bits(model: MarkovModel) -> float:
        total = sum(int((codes < UNKNOWN).sum()) for codes in tuned)
        return -sum(float(model.log_probabilities(codes).sum()) for codes in tuned) / total

    return min(models.values(), key=bits)
