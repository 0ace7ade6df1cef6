"""The count table that a model's scores are set against: of preceding bases for causal, of both flanks for masked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import ConfigError
from genossm.evaluation.bases import DEFAULT_ORDERS
from genossm.evaluation.markov import UNKNOWN, MarkovModel, base_codes
from genossm.evaluation.markov_fit import fit_markov_models
from genossm.evaluation.two_sided import TwoSidedMarkov, fit_two_sided
from genossm.evaluation.variant_markov import markov_ratios
from genossm.evaluation.variant_two_sided import two_sided_ratios
from genossm.genome import Genome
from genossm.sequence import Interval, Variant
from genossm.variants import ScoringOptions
from genossm.variants.methods import MLM

# Without validation regions the last tenth of every training region tunes the tables.
_TUNING_SHARE = 10

Baseline = MarkovModel | TwoSidedMarkov


def best_baseline(
    genome: Genome,
    train: Sequence[Interval],
    validation: Sequence[Interval],
    orders: Sequence[int] | None,
    method: str,
) -> Baseline:
    """The count table of the order with the fewest bits per base on `validation`.

    orders: None for the usual ones.   validation: where empty, the last tenth of each training region, which is then
    not counted.
    method: "mlm" for one that sees both flanks, "llr" for one that sees what precedes.
    Raises: ConfigError for an order outside 0..12, none at all, or regions without a known base.
    """
    if orders is None:
        orders = DEFAULT_ORDERS["masked" if method == MLM.name else "causal"]
    if not validation:
        cuts = [region.end - max(1, len(region) // _TUNING_SHARE) for region in train]
        validation = [Interval(region.contig, cut, region.end) for region, cut in zip(train, cuts)]
        train = [Interval(region.contig, region.start, cut) for region, cut in zip(train, cuts) if cut > region.start]
    counted, tuned = ([base_codes(genome.fetch_array(region)) for region in regions] for regions in (train, validation))
    models: dict[int, MarkovModel] | dict[int, TwoSidedMarkov]
    try:
        models = (fit_two_sided if method == MLM.name else fit_markov_models)(counted, tuned, orders)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not models:
        raise ConfigError("No order of a Markov model was given; wanted at least one of 0 to 12.")
    return min(models.values(), key=lambda model: _bits(model, tuned))


def baseline_ratios(
    model: Baseline, genome: Genome, variants: Sequence[Variant], options: ScoringOptions
) -> NDArray[np.float64]:
    """(variants,) log-likelihood ratio of each, in nats, by the definition that goes with the table."""
    if isinstance(model, TwoSidedMarkov):
        return two_sided_ratios(model, genome, variants, options)
    return markov_ratios(model, genome, variants, options)


def _bits(model: Baseline, sequences: Sequence[NDArray[np.uint8]]) -> float:
    """Mean of −log2 p over the known bases, each given all that the table may see of the sequence around it."""
    total = sum(int((codes < UNKNOWN).sum()) for codes in sequences)
    return -sum(_log_likelihood(model, codes) for codes in sequences) / total


def _log_likelihood(model: Baseline, codes: NDArray[np.uint8]) -> float:
    if isinstance(model, MarkovModel):
        return float(model.log_probabilities(codes).sum())
    places = np.flatnonzero(codes < UNKNOWN)
    values = model.log_probabilities_at(codes, places)
    return float(values[np.arange(len(places)), codes[places]].sum())
