"""What one allele asks of a model that reads whole windows: haplotypes, and masked places in them.

Everything is counted in letters of the plus strand from the beginning of a window, answers are those for the plus
strand's letters; the strand says only which way a model reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genossm.sequence import Placement, iupac_first
from genossm.variants.haplotypes import allele_window
from genossm.variants.methods import MASKED_FLANK
from genossm.variants.options import Strand
from genossm.variants.reference import Letters


@dataclass(frozen=True, slots=True)
class Haplotype:
    """The reference bases `start` to `end` with `letters` in place of the window's bases `first` to `last`."""

    contig: str
    start: int
    end: int
    first: int = 0
    last: int = 0
    letters: bytes = b""

    def __len__(self) -> int:
        return self.end - self.start - (self.last - self.first) + len(self.letters)

    def read(self, source: Letters, first: int = 0, last: int | None = None) -> bytes:
        """Its letters `first` to `last`, or to the end, on the plus strand."""
        last = len(self) if last is None else last
        # From here on the reference's letters stand `longer` further on.
        behind = self.first + len(self.letters)
        longer = behind - self.last
        before = source.wrapped(self.contig, self.start + first, self.start + min(last, self.first))
        between = self.letters[max(0, first - self.first) : max(0, last - self.first)]
        after = max(first, behind) - longer
        return before + between + source.wrapped(self.contig, self.start + after, self.start + last - longer)


@dataclass(frozen=True, slots=True)
class Pair:
    """Both haplotypes of an allele in its window.

    start: where they part.   ref_end, alt_end: from there on they are the same again. Between lies everything that
    some placement of an indel touches; a repeat may go on past the window's end.
    """

    reference: Haplotype
    alternative: Haplotype
    start: int
    ref_end: int
    alt_end: int


@dataclass(frozen=True, slots=True)
class Probe:
    """A haplotype read along one strand, with its letters `first` to `last` masked.

    The answer to it is ln p of A, C, G and T at each of these, (last - first, 4); equal probes have equal answers.
    """

    haplotype: Haplotype
    strand: Strand
    first: int
    last: int

    @property
    def places(self) -> slice:
        """The masked letters, counted along the strand."""
        if self.strand == "+":
            return slice(self.first, self.last)
        return slice(len(self.haplotype) - self.last, len(self.haplotype) - self.first)

    def on_plus(self, answer: NDArray[np.float64]) -> NDArray[np.float64]:
        """An answer along the strand, in its own letters, as that for the plus strand."""
        # Bases stand in the order A, C, G, T, so that the complement is the opposite order.
        return answer if self.strand == "+" else answer[::-1, ::-1]


@dataclass(frozen=True, slots=True)
class Term:
    """sign · Σ ln p of `letters` at the probe's places."""

    probe: Probe
    letters: bytes
    sign: float


def haplotype_pair(placement: Placement, context: int | None, source: Letters) -> Pair:
    """An allele's haplotypes. Where the reference has an ambiguity code, they hold the base that REF says instead."""
    window = allele_window(placement, context, "+", source)
    contig, start, end = placement.contig, window.start, window.end
    ref, alt = placement.ref.encode("ascii"), placement.alt.encode("ascii")
    leftmost, right = placement.span
    raw = source.around(contig, leftmost, min(right, end))
    span = iupac_first(raw)
    first = leftmost - start
    if span == raw:
        reference = Haplotype(contig, start, end)
        alternative = Haplotype(contig, start, end, first, first + len(ref), alt)
    else:
        reference = Haplotype(contig, start, end, first, first + len(span), span)
        alternative = Haplotype(contig, start, end, first, first + len(span), alt + span[len(ref) :])
    ref_end = right - start
    return Pair(reference, alternative, first, ref_end, ref_end + len(alt) - len(ref))


def masked_terms(placement: Placement, context: int | None, strand: Strand, source: Letters) -> tuple[Term, ...]:
    """What a masked log-likelihood ratio is the sum of; nothing where there is no letter to ask for.

    A substitution asks for ALT and REF behind one mask in the reference's window. A change of length asks, on either
    haplotype, for the bases around it, one at a time; these are the same bases on both, as many as the window has.
    """
    pair = haplotype_pair(placement, context, source)
    if len(placement.ref) == len(placement.alt):
        # The mask hides what the reference has there, so that all alleles of a site share the probe.
        plain = Haplotype(pair.reference.contig, pair.reference.start, pair.reference.end)
        probe = Probe(plain, strand, pair.start, pair.ref_end)
        return Term(probe, placement.alt.encode("ascii"), 1.0), Term(probe, placement.ref.encode("ascii"), -1.0)
    return (
        *_around(pair.alternative, pair.start, pair.alt_end, 1.0, strand, source),
        *_around(pair.reference, pair.start, pair.ref_end, -1.0, strand, source),
    )


def _around(haplotype: Haplotype, start: int, end: int, sign: float, strand: Strand, source: Letters) -> list[Term]:
    sides = (max(0, start - MASKED_FLANK), start), (end, min(end + MASKED_FLANK, len(haplotype)))
    letters = {
        first + number: letter
        for first, last in sides
        for number, letter in enumerate(haplotype.read(source, first, last))
    }
    return [
        Term(Probe(haplotype, strand, place, place + 1), bytes([letter]), sign)
        for place, letter in letters.items()
        if letter in b"ACGT"
    ]


def sum_of_terms(terms: tuple[Term, ...], answer: Callable[[Probe], NDArray[np.float64]]) -> float:
    """The ratio in nats, by whoever answers probes."""
    total = 0.0
    for term in terms:
        values = answer(term.probe)
        total += term.sign * float(sum(values[row, b"ACGT".index(letter)] for row, letter in enumerate(term.letters)))
    return total
