"""What one allele asks of a causal model on one strand: where its two haplotypes part, and which letters follow.

Everything is counted in letters from the beginning of a window, read along its strand: the plus strand begins at the
window's start, the minus strand, as the reverse complement, at its end. Either goes on past the other end of the
window to the contig's end (on a circular contig once around).
"""

from __future__ import annotations

from dataclasses import dataclass

from genossm.sequence import Placement, iupac_first, reverse_complement
from genossm.variants.options import ScoringOptions, Strand
from genossm.variants.reference import Letters


@dataclass(frozen=True, slots=True)
class Window:
    """One strand of the reference bases `start` to `end`.   limit: letters from its beginning to the contig's end."""

    contig: str
    start: int
    end: int
    strand: Strand
    limit: int

    def letters(self, source: Letters, first: int, last: int) -> bytes:
        """Letters `first` to `last` (not included) from the beginning, cut at `limit`."""
        last = min(last, self.limit)
        if first >= last:
            return b""
        if self.strand == "+":
            return source.wrapped(self.contig, self.start + first, self.start + last)
        return reverse_complement(source.wrapped(self.contig, self.end - last, self.end - first))


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two haplotypes in a window that are the same up to `start` and are compared over `count` letters from there.

    fork: letter at which the alternative leaves the reference's pass, at most `start`.
    alt: the alternative's letters from `fork` to `start + count`.
    ref: those of the reference haplotype; None, nearly always, where they are the reference's own. Only where the
    reference has an ambiguity code does the haplotype hold the base that REF says instead.
    """

    window: Window
    start: int
    count: int
    fork: int
    alt: bytes
    ref: bytes | None


def allele_window(placement: Placement, context: int | None, strand: Strand, source: Letters) -> Window:
    """The window that an allele is scored in, by the start0 of its left-aligned VCF form."""
    genome, contig = source.genome, placement.contig
    length, circular = genome.length(contig), genome.is_circular(contig)
    anchored = not (placement.ref and placement.alt)
    start0 = max(0, placement.leftmost - 1) if anchored else placement.leftmost
    start, end = source.window(contig, start0, context)
    ahead = length - start if strand == "+" else end
    return Window(contig, start, end, strand, length if circular else ahead)


def contrasts(placement: Placement, options: ScoringOptions, source: Letters) -> tuple[Contrast, ...]:
    """What is compared of an allele, one a strand."""
    windows = [allele_window(placement, options.context, strand, source) for strand in options.strands]
    return tuple(
        contrast(placement, window, options.longest_in(window.end - window.start), source) for window in windows
    )


def contrast(placement: Placement, window: Window, longest: int, source: Letters) -> Contrast:
    """The two haplotypes of an allele in its window, compared over at most `longest` letters.

    `count` is 0 if one of them ends where they would first differ (a repeat that runs to the contig's end).
    """
    start0, end0, ref, alt = _replaced(placement, window, source)
    if window.strand == "+":
        fork, after = start0 - window.start, end0 - window.start
        start = placement.first_difference - window.start
    else:
        fork, after = window.end - end0, window.end - start0
        start = window.end - placement.last_difference[0]
        ref, alt = ref and reverse_complement(ref), reverse_complement(alt)
    left = window.limit - start
    count = max(0, min(longest, left, left + len(placement.alt) - len(placement.ref)))
    kept = start - fork + count
    follow = window.letters(source, after, after + kept)
    return Contrast(window, start, count, fork, (alt + follow)[:kept], ref and (ref + follow)[:kept])


def _replaced(placement: Placement, window: Window, source: Letters) -> tuple[int, int, bytes | None, bytes]:
    """`(start0, end0, ref, alt)` on the plus strand: reference bases and what stands there on either haplotype.

    Of an indel's equivalent placements the one is taken that the strand reaches last, so that nothing is run twice.
    """
    first, last = placement.span
    raw = source.around(placement.contig, first, last)
    span = iupac_first(raw)
    ref, alt = placement.ref.encode("ascii"), placement.alt.encode("ascii")
    if span != raw:
        return first, last, span, alt + span[len(ref) :]
    if window.strand == "-":
        return first, first + len(ref), None, alt
    shift = placement.rightmost - placement.leftmost
    return placement.rightmost, last, None, _rotated(alt, shift)


def _rotated(letters: bytes, by: int) -> bytes:
    """What inserted letters read like `by` bases further right in their repeat."""
    cut = by % len(letters) if letters else 0
    return letters[cut:] + letters[:cut]
