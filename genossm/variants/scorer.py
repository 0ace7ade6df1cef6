"""Scores of alleles by a causal model: log-likelihood ratios, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

from genossm.core.errors import ContigNotFoundError, UsageError
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Variant, place, trimmed_alleles
from genossm.variants.haplotypes import Contrast, Strand, allele_window, contrast
from genossm.variants.passes import CausalPasses
from genossm.variants.reference import Letters
from genossm.variants.status import Status, reference_status, written_status

DEFAULT_CONTEXT = 8192
DEFAULT_HORIZON = 512
BLOCK = 8192
"""Alleles that are looked at together: windows are shared within a block, memory does not grow beyond one."""


@dataclass(frozen=True)
class ScoringOptions:
    """What a score depends on, beside model and reference.

    context: bases of a window, a multiple of 4.   horizon: letters compared from the first difference on, at most
    context / 4; None is context / 4.   both_strands: the mean of both strands instead of the plus strand alone.
    Raises: UsageError for values out of range.
    """

    context: int = DEFAULT_CONTEXT
    horizon: int | None = DEFAULT_HORIZON
    both_strands: bool = False

    def __post_init__(self) -> None:
        if self.context < 8 or self.context % 4:
            raise UsageError(f"A context of {self.context} bases is not possible; wanted a multiple of 4, at least 8.")
        if self.horizon is not None and self.horizon < 1:
            raise UsageError(f"A horizon of {self.horizon} letters is not possible; wanted at least 1, or full.")

    @property
    def longest(self) -> int:
        """Letters that are compared at most."""
        quarter = self.context // 4
        return quarter if self.horizon is None else min(self.horizon, quarter)

    @property
    def strands(self) -> tuple[Strand, ...]:
        return ("+", "-") if self.both_strands else ("+",)


@dataclass(frozen=True, slots=True)
class Allele:
    """One ALT allele as a file writes it, plain sequence or not; `alt` is None where a record has none."""

    contig: str
    pos1: int
    ref: str
    alt: str | None


@dataclass(frozen=True, slots=True)
class ScoredAllele:
    """variant: as it was given.   llr: ALT against REF in nats, positive where the model finds ALT likelier; None
    unless `status` is OK.   strand_scores: the plus strand's score, then the minus strand's if both were asked for.
    """

    variant: Variant | Allele
    llr: float | None
    status: Status
    strand_scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Located:
    """An allele looked up in the reference; `contrasts`, one a strand, are empty unless there is something to run."""

    variant: Variant | Allele
    status: Status
    contrasts: tuple[Contrast, ...] = ()


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

    >>> for scored in score(model, genome, [Variant.parse("20:1000226:A>T")]):
    ...     print(scored.variant, scored.llr, scored.status)
    """
    scorer = Scorer(model, genome, ScoringOptions(context, horizon, both_strands), batch_size=batch_size)
    return chain.from_iterable(scorer.score([scorer.locate(v) for v in block]) for block in _blocks(variants))


class Scorer:
    """Looks alleles up in a genome, and scores those that can be; see `score`."""

    def __init__(
        self, model: SequenceModel, genome: Genome, options: ScoringOptions, *, batch_size: int | None = None
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"A batch of {batch_size} alternatives is not possible; wanted at least 1.")
        self.genome, self.options = genome, options
        self._letters = Letters(genome)
        self._passes = CausalPasses(model, self._letters, batch_size=batch_size)

    def locate(self, variant: Variant | Allele) -> Located:
        """What can be said of an allele without the model: its status, and what to compare."""
        ref, alt = variant.ref, variant.alt
        reason = written_status(ref, alt) or self._against_reference(variant)
        if reason is not None or alt is None:
            return Located(variant, reason or Status.NO_ALT)
        ref, alt = ref.upper(), alt.upper()
        if ref == alt:
            return Located(variant, Status.OK)
        _, short_ref, short_alt = trimmed_alleles(ref, alt)
        if max(len(short_ref), len(short_alt)) * 8 > self.options.context:
            return Located(variant, Status.TOO_LONG)
        contig = self.genome.resolve(variant.contig)
        placement = place(Variant(contig, variant.pos1, ref, alt), self._letters.reader(contig))
        return Located(
            variant,
            Status.OK,
            tuple(
                contrast(
                    placement,
                    allele_window(placement, self.options.context, strand, self._letters),
                    self.options.longest,
                    self._letters,
                )
                for strand in self.options.strands
            ),
        )

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
        values = values or (0.0,) * len(self.options.strands)
        return ScoredAllele(one.variant, float(np.mean(values)), one.status, values)

    def _against_reference(self, variant: Variant | Allele) -> Status | None:
        try:
            contig = self.genome.resolve(variant.contig)
        except ContigNotFoundError:
            return Status.CONTIG_UNKNOWN
        return reference_status(variant.pos1, variant.ref, self.genome.length(contig), self._letters.reader(contig))


def _blocks(variants: Iterable[Variant | Allele]) -> Iterator[list[Variant | Allele]]:
    rest = iter(variants)
    while block := list(islice(rest, BLOCK)):
        yield block
