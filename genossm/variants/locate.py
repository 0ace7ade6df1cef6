"""Alleles looked up in a reference: their status, and what there is to compare."""

from __future__ import annotations

from dataclasses import dataclass

from genossm.core.errors import ContigNotFoundError, UsageError
from genossm.genome import Genome
from genossm.sequence import Placement, Variant, place, trimmed_alleles
from genossm.variants.haplotypes import Contrast, Strand, allele_window, contrast
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


class Locator:
    """Looks alleles up in a genome: what can be said of them without a model."""

    def __init__(self, genome: Genome, options: ScoringOptions) -> None:
        self.genome, self.options, self.letters = genome, options, Letters(genome)

    def locate(self, variant: Variant | Allele) -> Located:
        """An allele's status, and what to compare."""
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
        placement = place(Variant(contig, variant.pos1, ref, alt), self.letters.reader(contig))
        return Located(variant, Status.OK, tuple(self._contrast(placement, strand) for strand in self.options.strands))

    def _contrast(self, placement: Placement, strand: Strand) -> Contrast:
        window = allele_window(placement, self.options.context, strand, self.letters)
        return contrast(placement, window, self.options.longest, self.letters)

    def _against_reference(self, variant: Variant | Allele) -> Status | None:
        try:
            contig = self.genome.resolve(variant.contig)
        except ContigNotFoundError:
            return Status.CONTIG_UNKNOWN
        return reference_status(variant.pos1, variant.ref, self.genome.length(contig), self.letters.reader(contig))
