"""Alleles looked up in a reference: their status, and where there is something to score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from genossm.core.errors import ContigNotFoundError
from genossm.genome import Genome
from genossm.sequence import Placement, Variant, context_on, place, place_on_circle, trimmed_alleles
from genossm.variants.options import ScoringOptions
from genossm.variants.reference import Letters
from genossm.variants.status import Status, reference_status, written_status

BLOCK = 8192
"""Alleles that are looked at together: windows are shared within a block, memory does not grow beyond one."""


@dataclass(frozen=True, slots=True)
class Allele:
    """One ALT allele as a file writes it, plain sequence or not; `alt` is None where a record has none.

    covariates: what heads are told of it beside its sequence, by name; None for nothing.
    """

    contig: str
    pos1: int
    ref: str
    alt: str | None
    covariates: Mapping[str, object] | None = field(default=None, compare=False, repr=False)


class EmbeddingDistances(NamedTuple):
    """Of ALT's mean hidden state from REF's: Euclidean, and 1 − cosine.

    l2, cosine: around the allele, over all its equivalent placements and 768 bases on either side of these, as far as
    the window goes.   window_l2, window_cosine: over the whole window.
    """

    l2: float
    cosine: float
    window_l2: float
    window_cosine: float


@dataclass(frozen=True, slots=True)
class ScoredAllele:
    """variant: as it was given.   llr: ALT against REF in nats, positive where the model finds ALT likelier; None
    unless `status` is OK and the model's own method was asked for.   strand_scores: what `llr` is the mean of: the
    plus strand's, then, if both were asked for, the minus strand's.   embedding: the mean over the same strands; None
    unless `status` is OK and it was asked for.   numbers: all of these in the order of the scorer's tags, as files hold
    them; empty unless `status` is OK.
    """

    variant: Variant | Allele
    llr: float | None
    status: Status
    strand_scores: tuple[float, ...] = ()
    embedding: EmbeddingDistances | None = None
    numbers: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Located:
    """An allele looked up in the reference; `placement` is None unless there is something to run."""

    variant: Variant | Allele
    status: Status
    placement: Placement | None = None


class Locator:
    """Looks alleles up in a genome: what can be said of them without a model."""

    def __init__(self, genome: Genome, options: ScoringOptions) -> None:
        self.genome, self.options, self.letters = genome, options, Letters(genome)

    def locate(self, variant: Variant | Allele) -> Located:
        """An allele's status, and where it stands if it can be scored."""
        ref, alt = variant.ref, variant.alt
        reason = written_status(ref, alt) or self._against_reference(variant)
        if reason is not None or alt is None:
            return Located(variant, reason or Status.NO_ALT)
        ref, alt = ref.upper(), alt.upper()
        if ref == alt:
            return Located(variant, Status.OK)
        contig = self.genome.resolve(variant.contig)
        length, circular = self.genome.length(contig), self.genome.is_circular(contig)
        _, short_ref, short_alt = trimmed_alleles(ref, alt)
        if max(len(short_ref), len(short_alt)) * 8 > context_on(self.options.context, length, circular=circular):
            return Located(variant, Status.TOO_LONG)
        plain, fetch = Variant(contig, variant.pos1, ref, alt), partial(self.letters.around, contig)
        return Located(variant, Status.OK, place_on_circle(plain, fetch, length) if circular else place(plain, fetch))

    def _against_reference(self, variant: Variant | Allele) -> Status | None:
        try:
            contig = self.genome.resolve(variant.contig)
        except ContigNotFoundError:
            return Status.CONTIG_UNKNOWN
        length, circular = self.genome.length(contig), self.genome.is_circular(contig)
        fetch = partial(self.letters.around, contig)
        return reference_status(variant.pos1, variant.ref, length, fetch, circular=circular)
