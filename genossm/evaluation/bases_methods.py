"""What is judged beside each other on the same bases: a model, and the count tables of its own objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import ConfigError
from genossm.data.regions import Splits
from genossm.evaluation.likelihood import base_log_probabilities
from genossm.evaluation.markov import UNKNOWN, MarkovModel, base_codes
from genossm.evaluation.markov_fit import fit_markov_models, require_known_bases
from genossm.evaluation.masked_likelihood import hidden_log_probabilities, hidden_places
from genossm.evaluation.two_sided import TwoSidedMarkov, count_both_strands, tune_two_sided
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome
    from genossm.models import SequenceModel

MODEL_NAME = "model"
UNMASKED = " (flanks unmasked)"

Scores = tuple[NDArray[np.float64], NDArray[np.bool_]]


@dataclass(frozen=True)
class Methods:
    """names, details: one a method, the model first.

    score: of a region, ln p of each base (methods, length), 0 where it is not scored, and which are scored (length,).
    """

    names: tuple[str, ...]
    details: tuple[dict[str, Any], ...]
    score: Callable[[Interval], Scores]


@dataclass(frozen=True)
class Hiding:
    """Which bases a masked model is asked for: a share `fraction`, drawn from `seed`; see `hidden_places`.

    Raises: ConfigError for a share out of range.
    """

    fraction: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.fraction <= 1.0:
            raise ConfigError(f"The share of hidden bases is {self.fraction}; wanted above 0 and at most 1.")

    def places(self, region: Interval) -> NDArray[np.bool_]:
        """(length,) whether each place of a region is hidden."""
        return hidden_places(region, self.fraction, self.seed)


def causal_methods(
    model: SequenceModel, genome: Genome, splits: Splits, *, orders: Sequence[int], context: int | None
) -> Methods:
    """The model and Markov models of these orders, all of which predict each base from those before it.

    Raises: ConfigError for an order outside 0..12 or regions without a known base.
    """
    markov = fit_on_splits(genome, splits, orders)
    details = [_model_details(model)]
    for order, baseline in markov.items():
        strands = "both" if baseline.both_strands else "one"
        details.append(_table_details(order, strands, baseline.strengths))
    names = (MODEL_NAME, *(baseline.name for baseline in markov.values()))
    score = partial(_score_causal, model, list(markov.values()), genome, context)
    return Methods(names, tuple(details), score)


def fit_on_splits(genome: Genome, splits: Splits, orders: Sequence[int]) -> dict[int, MarkovModel]:
    """Markov models of these orders, counted on the training regions and tuned on the validation regions.

    Raises: ConfigError for an order outside 0..12 or regions without a known base.
    """
    try:
        return fit_markov_models(region_codes(genome, splits.train), region_codes(genome, splits.validation), orders)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def masked_methods(
    model: SequenceModel,
    genome: Genome,
    splits: Splits,
    *,
    orders: Sequence[int],
    context: int | None,
    hiding: Hiding,
) -> Methods:
    """The model and two-sided tables of these orders, all of which predict hidden bases from those around them.

    A table of each order reads what the model reads, hidden bases hidden, and was tuned on validation regions masked
    alike. Another of each order reads whole flanks, more than the model does, and was tuned so.
    Raises: ConfigError for an order outside 0..12 or regions without a known base.
    """
    masked, whole = _fit_two_sided(genome, splits, orders, hiding)
    tables = [(table, flanks) for flanks, found in (("masked", masked), ("unmasked", whole)) for table in found]
    names = [MODEL_NAME, *(table.name + (UNMASKED if flanks == "unmasked" else "") for table, flanks in tables)]
    details = [_model_details(model)]
    details += [{**_table_details(table.order, "both", table.strengths), "flanks": flanks} for table, flanks in tables]
    return Methods(tuple(names), tuple(details), partial(_score_masked, model, masked, whole, genome, context, hiding))


def _fit_two_sided(
    genome: Genome, splits: Splits, orders: Sequence[int], hiding: Hiding
) -> tuple[list[TwoSidedMarkov], list[TwoSidedMarkov]]:
    """Tables tuned for masked flanks, and tables tuned for whole ones."""
    if not orders:
        return [], []
    train, validation = region_codes(genome, splits.train), region_codes(genome, splits.validation)
    hidden = [hiding.places(region) for region in splits.validation]
    try:
        require_known_bases(train, validation)
        counts = count_both_strands(train, max(orders))
        masked = tune_two_sided(counts, validation, orders, masked=hidden)
        # Order 0 looks at no flank.
        whole = tune_two_sided(counts, validation, [order for order in orders if order])
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return list(masked.values()), list(whole.values())


def region_codes(genome: Genome, regions: Sequence[Interval]) -> list[NDArray[np.uint8]]:
    """`base_codes` of every region."""
    return [base_codes(genome.fetch_array(region)) for region in regions]


def _score_causal(
    model: SequenceModel, markov: list[MarkovModel], genome: Genome, context: int | None, region: Interval
) -> Scores:
    values, scored = base_log_probabilities(model, genome, region, context=context)
    rows = [values]
    if markov:
        before = min(region.start, max(m.order for m in markov))
        codes = base_codes(genome.fetch_array(Interval(region.contig, region.start - before, region.end)))
        scored = scored & (codes[before:] < UNKNOWN)
        rows += [m.log_probabilities(codes)[before:] for m in markov]
    return np.where(scored, np.stack(rows), 0.0), scored


def _score_masked(
    model: SequenceModel,
    masked: list[TwoSidedMarkov],
    whole: list[TwoSidedMarkov],
    genome: Genome,
    context: int | None,
    hiding: Hiding,
    region: Interval,
) -> Scores:
    values = hidden_log_probabilities(
        model, genome, region, fraction=hiding.fraction, seed=hiding.seed, context=context
    )
    around = with_flanks(genome, region, max((table.order for table in masked), default=0))
    true = base_codes(genome.fetch_array(around))
    shown = np.where(hiding.places(around), UNKNOWN, true).astype(np.uint8)
    inside = slice(region.start - around.start, region.end - around.start)
    scored = hiding.places(region) & (true[inside] < UNKNOWN)
    places = np.flatnonzero(scored)
    rows = [values]
    for tables, read in ((masked, shown), (whole, true)):
        for table in tables:
            found = table.log_probabilities_at(read, places + inside.start)
            row = np.zeros(len(region))
            row[places] = found[np.arange(len(places)), true[inside][places]]
            rows.append(row)
    return np.where(scored, np.stack(rows), 0.0), scored


def with_flanks(genome: Genome, region: Interval, flank: int) -> Interval:
    """A region with so many bases on either side, as far as its contig has them."""
    end = min(region.end + flank, genome.length(region.contig))
    return Interval(region.contig, max(0, region.start - flank), end)


def _model_details(model: SequenceModel) -> dict[str, Any]:
    return {"kind": "model", "parameters": model.num_parameters()}


def _table_details(order: int, strands: str, strengths: Sequence[float]) -> dict[str, Any]:
    return {"kind": "markov", "order": order, "strands": strands, "strengths": list(strengths)}
