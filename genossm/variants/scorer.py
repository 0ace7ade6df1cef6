"""Scores of alleles by a causal model: log-likelihood ratios, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice

import numpy as np

from genossm.core.errors import NumericsError, UsageError
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Variant
from genossm.variants.locate import (
    BLOCK,
    DEFAULT_CONTEXT,
    DEFAULT_HORIZON,
    Allele,
    Located,
    Locator,
    ScoredAllele,
    ScoringOptions,
)
from genossm.variants.passes import CausalPasses
from genossm.variants.status import Status


def score(
    model: SequenceModel,
    genome: Genome,
    variants: Iterable[Variant | Allele],
    *,
    context: int = DEFAULT_CONTEXT,
    horizon: int | None = DEFAULT_HORIZON,
    both_strands: bool = False,
    batch_size: int | None = None,
) -> Iterator[ScoredAllele]:
    """Causal log-likelihood ratio of every allele, in the order given; nothing is read or written but the genome.

    A score is Σ ln p(ALT) − Σ ln p(REF) over the same number of letters of either haplotype, from the first where they
    differ, each given all letters before it in a window that the position alone decides. It does not depend on the
    other variants, their order or the batch size, beyond rounding (1e-3 nats per 1,024 letters in float32). It is 0
    where no letter can be compared: a repeat that runs to the contig's end.

    context: bases of a window, a multiple of 4.   horizon: letters compared, at most context / 4; None is all of these.
    both_strands: the mean of both strands.   batch_size: alternatives in one pass, None to choose by their length.
    Raises: UsageError for impossible options; MethodError for a model that is not causal.

    >>> [(str(one.variant), str(one.status)) for one in score(model, genome, [Variant.parse("20:1000226:A>T")])]
    [('20:1000226:A>T', 'OK')]
    """
    scorer = Scorer(model, genome, ScoringOptions(context, horizon, both_strands), batch_size=batch_size)
    return chain.from_iterable(scorer.score([scorer.locate(v) for v in block]) for block in _blocks(variants))


class Scorer:
    """Scores those alleles that can be; see `score`."""

    def __init__(
        self, model: SequenceModel, genome: Genome, options: ScoringOptions, *, batch_size: int | None = None
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"A batch of {batch_size} alternatives is not possible; wanted at least 1.")
        self._locator = Locator(genome, options)
        self._passes = CausalPasses(model, self._locator.letters, batch_size=batch_size)

    @property
    def genome(self) -> Genome:
        return self._locator.genome

    def locate(self, variant: Variant | Allele) -> Located:
        """What can be said of an allele without the model: its status, and what to compare."""
        return self._locator.locate(variant)

    def score(self, located: Sequence[Located], progress: Callable[[int], None] | None = None) -> list[ScoredAllele]:
        """Run the contrasts of alleles. progress: called with the number of haplotypes just done."""
        ratios = self._passes.ratios([item for one in located for item in one.contrasts], progress)
        done = 0
        scored: list[ScoredAllele] = []
        for one in located:
            values = tuple(map(float, ratios[done : done + len(one.contrasts)]))
            done += len(values)
            scored.append(self._scored(one, values))
        return scored

    def _scored(self, one: Located, values: tuple[float, ...]) -> ScoredAllele:
        if one.status is not Status.OK:
            return ScoredAllele(one.variant, None, one.status)
        # REF equal to ALT changes nothing, so it is not run.
        values = values or (0.0,) * len(self._locator.options.strands)
        if not np.isfinite(values).all():
            raise NumericsError(
                f"{one.variant.contig}:{one.variant.pos1}:{one.variant.ref}>{one.variant.alt} scores {values}, "
                "which is no number. Check the model's weights, or load it in float32."
            )
        return ScoredAllele(one.variant, float(np.mean(values)), one.status, values)


def _blocks(variants: Iterable[Variant | Allele]) -> Iterator[list[Variant | Allele]]:
    rest = iter(variants)
    while block := list(islice(rest, BLOCK)):
        yield block
