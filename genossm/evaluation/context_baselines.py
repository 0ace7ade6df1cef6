"""Methods without a network, judged by context as models are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import ConfigError, UsageError
from genossm.data.regions import Splits
from genossm.evaluation.bases_methods import Hiding, Scores, fit_on_splits, region_codes, with_flanks
from genossm.evaluation.context_method import ContextMethod
from genossm.evaluation.copy_model import CopyModel
from genossm.evaluation.markov import UNKNOWN, MarkovModel, base_codes
from genossm.evaluation.two_sided import TwoSidedMarkov, count_both_strands, tune_two_sided
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome

_NAME = re.compile(r"(markov|two-sided)-(\d+)|copy|copy-trained")


def baseline_method(
    text: str, genome: Genome, splits: Splits, contexts: Sequence[int], *, hiding: Hiding, name: str | None = None
) -> ContextMethod:
    """The baseline called `text`: markov-K, two-sided-K, copy or copy-trained; counted on train, tuned on validation.

    Raises: UsageError for another name; ConfigError for an order outside 0..12 or regions without a known base.
    """
    match = _NAME.fullmatch(text)
    if match is None:
        raise UsageError(f"There is no baseline {text!r}; wanted markov-K, two-sided-K, copy or copy-trained.")
    if match[1] == "two-sided":
        return _two_sided(int(match[2]), genome, splits, hiding, name)
    order = int(match[2]) if match[1] else 12
    markov = fit_on_splits(genome, splits, [order])[order]
    details: dict[str, Any] = {"kind": "markov" if match[1] else "copy", "order": order}
    details |= {"strengths": list(markov.strengths), "strands": "both" if markov.both_strands else "one"}
    if match[1]:
        return ContextMethod(name or markov.name, "causal", details, _Markov(genome, markov).score)
    trained = text == "copy-trained"
    train = region_codes(genome, splits.train) if trained else None
    copy = CopyModel(genome, markov, splits.validation, train, max(contexts) // 2)
    shown = "copy model, training sequence in reach" if trained else "copy model, window alone"
    return ContextMethod(name or shown, "causal", details | {"trained": trained}, copy.score)


@dataclass(eq=False)
class _Markov:
    """A Markov model sees of a window what its order reaches, which is the same for all but the shortest windows."""

    genome: Genome
    model: MarkovModel
    _whole: dict[Interval, Scores] = field(default_factory=dict)

    def score(self, region: Interval, context: int) -> Scores:
        """ln p of each base from at most as many bases before it as its window holds, and which are scored."""
        half = context // 2
        if half >= self.model.order:
            if region not in self._whole:
                self._whole[region] = self._score(region, None)
            return self._whole[region]
        return self._score(region, half)

    def _score(self, region: Interval, half: int | None) -> Scores:
        before = min(region.start, self.model.order)
        codes = base_codes(self.genome.fetch_array(Interval(region.contig, region.start - before, region.end)))
        seen: NDArray[np.int64] | None = None
        if half is not None:
            seen = np.concatenate([np.zeros(before, np.int64), half + np.arange(len(region)) % half])
        return self.model.log_probabilities(codes, seen=seen)[before:], codes[before:] < UNKNOWN


def _two_sided(order: int, genome: Genome, splits: Splits, hiding: Hiding, name: str | None) -> ContextMethod:
    validation = region_codes(genome, splits.validation)
    hidden = [hiding.places(region) for region in splits.validation]
    try:
        counts = count_both_strands(region_codes(genome, splits.train), order)
        table = tune_two_sided(counts, validation, [order], masked=hidden)[order]
    except ValueError as error:
        raise ConfigError(str(error)) from error
    details = {"kind": "markov", "order": order, "strands": "both", "strengths": list(table.strengths)}
    details |= {"mask_fraction": hiding.fraction, "mask_seed": hiding.seed}
    return ContextMethod(name or table.name, "masked", details, _TwoSided(genome, table, hiding).score)


@dataclass(eq=False)
class _TwoSided:
    """A table that reads the same masked sequence as the model, up to its order on either side."""

    genome: Genome
    table: TwoSidedMarkov
    hiding: Hiding
    _found: dict[Interval, Scores] = field(default_factory=dict)

    def score(self, region: Interval, context: int) -> Scores:
        """ln p of each hidden base. Raises: ConfigError for windows whose quarter the table would look beyond."""
        if context < 4 * self.table.order:
            raise ConfigError(
                f"A table of order {self.table.order} looks beyond windows of {context} bases; wanted at least "
                f"{4 * self.table.order}."
            )
        if region not in self._found:
            self._found[region] = self._score(region)
        return self._found[region]

    def _score(self, region: Interval) -> Scores:
        around = with_flanks(self.genome, region, self.table.order)
        true = base_codes(self.genome.fetch_array(around))
        shown = np.where(self.hiding.places(around), UNKNOWN, true).astype(np.uint8)
        offset = region.start - around.start
        bases = true[offset : offset + len(region)]
        scored = self.hiding.places(region) & (bases < UNKNOWN)
        places = np.flatnonzero(scored)
        values = np.zeros(len(region))
        found = self.table.log_probabilities_at(shown, places + offset)
        values[places] = found[np.arange(len(places)), bases[places]]
        return values, scored
