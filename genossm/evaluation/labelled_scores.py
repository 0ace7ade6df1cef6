"""Who gives numbers to labelled alleles: a model by each of its methods, or a count table by the same definition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import genossm.genome
from genossm.core.errors import UsageError
from genossm.data.regions import parse_regions
from genossm.evaluation.two_sided import TwoSidedMarkov
from genossm.evaluation.variant_baseline import Baseline, baseline_ratios, best_baseline
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Variant
from genossm.variants import ScoringOptions
from genossm.variants.locate import Allele, Locator
from genossm.variants.methods import LLR, METHODS, MLM, tags_of
from genossm.variants.scorer import Scorer

ORDER = 12
_BLOCK = 4096

Progress = Callable[[int, int], None]
_Key = tuple[str, str, int, str, str | None]


@dataclass(frozen=True)
class Scored:
    """numbers: one a column; None where there are none, and `status` says why."""

    status: str
    numbers: tuple[float, ...] | None


class Scores(ABC):
    """Numbers of alleles. One that several sets share is scored once.   columns: the name of each number."""

    def __init__(self, name: str, digest: str, columns: Sequence[str]) -> None:
        self.name, self.digest, self.columns = name, digest, tuple(columns)
        self._known: dict[_Key, Scored] = {}

    def of(self, reference: str, alleles: Sequence[Allele], progress: Progress | None = None) -> list[Scored]:
        """One for each allele, in their order.   progress: (alleles done, of all that are not known yet)."""
        keys = [(reference, one.contig, one.pos1, one.ref, one.alt) for one in alleles]
        asked = {key: one for key, one in zip(keys, alleles) if key not in self._known}
        with genossm.genome.open(reference) as genome:
            for done, (key, scored) in enumerate(zip(asked, self._score(genome, asked.values())), start=1):
                self._known[key] = scored
                if progress:
                    progress(done, len(asked))
        return [self._known[key] for key in keys]

    @abstractmethod
    def _score(self, genome: Genome, alleles: Iterable[Allele]) -> Iterator[Scored]: ...


class ModelScores(Scores):
    """By those of the options' methods that the model gives; where none are named, by its own.

    Raises: MethodError where it gives none of those named.
    """

    def __init__(
        self, name: str, model: SequenceModel, options: ScoringOptions, *, batch_size: int | None = None
    ) -> None:
        given = tuple(method for method in options.methods if model.objective in METHODS[method].objectives)
        options = replace(options, methods=given or options.methods)
        self._model, self._options, self._batch_size = model, options, batch_size
        resolved = options.of_model(model.objective, equivariant=model.config.equivariant)
        super().__init__(name, model.digest(), [tag.name for tag in tags_of(resolved.methods)])

    def _score(self, genome: Genome, alleles: Iterable[Allele]) -> Iterator[Scored]:
        scorer = Scorer(self._model, genome, self._options, batch_size=self._batch_size)
        for one in scorer.stream(alleles):
            numbers = tuple(number for number in one.numbers if number is not None)
            yield Scored(one.status.value, numbers if numbers and len(numbers) == len(one.numbers) else None)


class TableScores(Scores):
    """By a count table: ratios of the preceding bases, or of both flanks where the table sees both."""

    def __init__(self, table: Baseline, digest: str, options: ScoringOptions) -> None:
        two_sided = isinstance(table, TwoSidedMarkov)
        method = MLM if two_sided else LLR
        # Both flanks are read on both strands, as the shipped masked model reads them.
        self._table = table
        self._options = replace(options, methods=(method.name,), both_strands=options.both_strands or two_sided)
        super().__init__(table.name, digest, [method.tags[0].name])

    def _score(self, genome: Genome, alleles: Iterable[Allele]) -> Iterator[Scored]:
        locator = Locator(genome, self._options)
        located = [locator.locate(one) for one in alleles]
        for start in range(0, len(located), _BLOCK):
            block = located[start : start + _BLOCK]
            variants = [cast("Variant", one.variant) for one in block if one.placement is not None]
            ratios = iter(baseline_ratios(self._table, genome, variants, self._options))
            for one in block:
                numbers = None if one.placement is None else (float(next(ratios)),)
                yield Scored(one.status.value, numbers)


def count_tables(
    reference: str, train: Sequence[str], validation: Sequence[str], options: ScoringOptions
) -> list[TableScores]:
    """The order-12 tables of the preceding bases and of both flanks, counted on `train`, tuned on `validation`.

    Raises: UsageError without training regions; what counting raises.
    """
    if not train:
        raise UsageError("Tables need regions to count on: --train REGION, repeatable.")
    with genossm.genome.open(reference) as genome:
        digest = genome.reference_digest
        counted, tuned = (parse_regions(genome, regions) for regions in (train, validation))
        tables = [best_baseline(genome, counted, tuned, (ORDER,), method.name) for method in (LLR, MLM)]
    return [TableScores(table, digest, options) for table in tables]
