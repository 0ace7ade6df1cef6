"""The same change written many ways: trimming, left-alignment, and the span of all equivalent placements.

`fetch(start0, end0)` gives the letters of the variant's contig, fewer where the contig ends (never an error
there). Case is ignored and ambiguity codes count as their alphabetically first base, by the VCF rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from genossm.core.errors import IntervalError, ReferenceMismatchError
from genossm.sequence.alphabet import iupac_first, iupac_matches
from genossm.sequence.variant import Variant, trimmed_alleles

Fetch = Callable[[int, int], bytes]

_FIRST_STEP = 64
_LONGEST_STEP = 1 << 16


@dataclass(frozen=True)
class Placement:
    """A variant without shared letters, with every place that gives the same haplotype.

    ref, alt: trimmed alleles at `leftmost`; one may be empty.
    leftmost, rightmost: 0-based starts of the first and the last equivalent placement (equal unless it is a pure
    insertion or deletion in a repeat).
    """

    contig: str
    leftmost: int
    rightmost: int
    ref: str
    alt: str

    @property
    def span(self) -> tuple[int, int]:
        """Reference bases `(start0, end0)` that some placement touches; empty for an insertion with one placement."""
        return self.leftmost, self.rightmost + len(self.ref)

    @property
    def first_difference(self) -> int:
        """Offset from the contig's start where the two haplotypes first differ, read along the plus strand.

        It is the same number on both haplotypes, since everything before is shared.
        """
        return self.rightmost

    @property
    def last_difference(self) -> tuple[int, int]:
        """`(ref_end0, alt_end0)`: from there rightwards the reference and the alternative haplotype are the same.

        Read along the minus strand, the bases just before these are where the haplotypes first differ.
        """
        return self.leftmost + len(self.ref), self.leftmost + len(self.alt)


def place(variant: Variant, fetch: Fetch) -> Placement:
    """Trim a variant and find all its equivalent placements.

    Raises: ReferenceMismatchError if REF is not what the reference has there; IntervalError if REF leaves the contig.
    """
    check_reference(variant, fetch)
    return placed(variant.contig, *_trimmed(variant), fetch)


def placed(contig: str, start0: int, ref: str, alt: str, fetch: Fetch) -> Placement:
    """`place` for trimmed alleles at `start0`, of which one may be empty; REF is not checked."""
    if ref and alt:
        return Placement(contig, start0, start0, ref, alt)
    moved = _steps_left(start0, ref or alt, fetch)
    leftmost = start0 - moved
    ref, alt = _rotate(ref, moved), _rotate(alt, moved)
    rightmost = leftmost + _steps_right(leftmost + len(ref), ref or alt, fetch)
    return Placement(contig, leftmost, rightmost, ref, alt)


def place_on_circle(variant: Variant, fetch: Fetch, length: int) -> Placement:
    """`place` on a circular contig, where REF may pass the end and an indel may move across it.

    fetch: goes around, so that `fetch(length, length + 3)` are the first three letters.
    `leftmost` is on the contig, and so is, for an indel, the base before it (1 to `length`, then); `rightmost` may pass
    the end. However a change is written, on either side of the origin, it has one placement.
    Raises: as `place`.
    """
    # A turn in front and one behind: a repeat that goes all around ends there.
    unrolled = Variant(variant.contig, variant.pos1 + length, variant.ref, variant.alt)
    found = place(unrolled, lambda start0, end0: fetch(max(0, start0), min(end0, 3 * length)))
    first = 0 if found.ref and found.alt else 1
    moved = first + (found.leftmost - first) % length - found.leftmost
    return replace(found, leftmost=found.leftmost + moved, rightmost=found.rightmost + moved)


def trim(variant: Variant) -> Variant:
    """Shared letters removed from the end, then from the start, one letter of each allele kept (VCF's parsimony)."""
    ref, alt = variant.ref, variant.alt
    back = _shared(ref[::-1], alt[::-1])
    ref, alt = ref[: len(ref) - back], alt[: len(alt) - back]
    front = _shared(ref, alt)
    return Variant(variant.contig, variant.pos1 + front, ref[front:], alt[front:])


def left_align(variant: Variant, fetch: Fetch) -> Variant:
    """The leftmost, shortest VCF form; equal to `bcftools norm`.

    An indel is anchored by the base before it, at the contig's start by the base after it.
    Raises: ReferenceMismatchError if REF is not what the reference has there; IntervalError if REF leaves the contig.
    Source: Tan, Abecasis & Kang 2015, algorithm 1.
    """
    check_reference(variant, fetch)
    start, ref, alt = _trimmed(variant)
    if ref and alt:
        return Variant(variant.contig, start + 1, ref, alt)
    moved = _steps_left(start, ref or alt, fetch)
    return anchored(variant.contig, start - moved, _rotate(ref, moved), _rotate(alt, moved), fetch)


def equivalent_span(variant: Variant, fetch: Fetch) -> tuple[int, int]:
    """Reference bases `(start0, end0)` that some equivalent placement touches; see `Placement.span`."""
    return place(variant, fetch).span


def anchored(contig: str, start0: int, ref: str, alt: str, fetch: Fetch) -> Variant:
    """The VCF form of alleles of which one may be empty: the base before is added, at the contig's start the one after.

    Raises: IntervalError if the change removes the whole contig, which VCF cannot write.
    """
    if ref and alt:
        return Variant(contig, start0 + 1, ref, alt)
    if start0 > 0:
        anchor = _read(fetch, start0 - 1, start0).decode("ascii")
        return Variant(contig, start0, anchor + ref, anchor + alt)
    anchor = _read(fetch, len(ref), len(ref) + 1).decode("ascii")
    if not anchor:
        raise IntervalError(f"{contig}: a deletion of the whole contig leaves no base to write it with.")
    return Variant(contig, 1, ref + anchor, alt + anchor)


def check_reference(variant: Variant, fetch: Fetch) -> None:
    """Raise unless REF is what the reference has there.

    Raises: ReferenceMismatchError; IntervalError if REF leaves the contig.
    """
    found = fetch(variant.start0, variant.end0).decode("ascii")
    if len(found) < len(variant.ref):
        raise IntervalError(f"{variant}: REF ends at {variant.end0:,}, after the end of contig {variant.contig}.")
    if not all(map(iupac_matches, found, variant.ref)):
        raise ReferenceMismatchError(
            f"{variant}: REF is {variant.ref!r}, the reference has {found!r} there. Check the assembly."
        )


def _trimmed(variant: Variant) -> tuple[int, str, str]:
    offset, ref, alt = trimmed_alleles(variant.ref, variant.alt)
    return variant.start0 + offset, ref, alt


def _shared(first: str, second: str) -> int:
    """Letters shared at the start, leaving at least one of each."""
    count = 0
    for a, b in zip(first[:-1], second[:-1]):
        if a != b:
            break
        count += 1
    return count


def _rotate(sequence: str, by: int) -> str:
    """The last `by` letters brought to the front: what an indel reads like `by` bases further left."""
    if not sequence:
        return sequence
    cut = len(sequence) - by % len(sequence)
    return sequence[cut:] + sequence[:cut]


def _read(fetch: Fetch, start: int, end: int) -> bytes:
    return iupac_first(fetch(start, end).upper())


def _steps_left(start: int, inserted: str, fetch: Fetch) -> int:
    """How far an indel of `inserted` at `start` can move left: while the base before is the indel's last."""
    letters, moved, step = inserted.encode("ascii"), 0, _FIRST_STEP
    while moved < start:
        end = start - moved
        block = _read(fetch, max(0, end - step), end)
        for letter in reversed(block):
            if letter != letters[-1 - moved % len(letters)]:
                return moved
            moved += 1
        step = min(2 * step, _LONGEST_STEP)
    return moved


def _steps_right(end: int, inserted: str, fetch: Fetch) -> int:
    """How far an indel of `inserted` whose reference part ends at `end` can move right."""
    letters, moved, step = inserted.encode("ascii"), 0, _FIRST_STEP
    while block := _read(fetch, end + moved, end + moved + step):
        for letter in block:
            if letter != letters[moved % len(letters)]:
                return moved
            moved += 1
        step = min(2 * step, _LONGEST_STEP)
    return moved
