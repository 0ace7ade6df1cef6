"""Why an ALT allele can be read or cannot: one word each, as INFO/GENOSSM_STATUS holds them."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from genossm.sequence.alphabet import iupac_matches

_BASES = frozenset("ACGTacgt")


class Status(StrEnum):
    """In the order in which they are looked for: the first that applies is the allele's."""

    NO_ALT = "NO_ALT"
    SYMBOLIC = "SYMBOLIC"
    BREAKEND = "BREAKEND"
    STAR_ALLELE = "STAR_ALLELE"
    NON_ACGT = "NON_ACGT"
    CONTIG_UNKNOWN = "CONTIG_UNKNOWN"
    OUT_OF_CONTIG = "OUT_OF_CONTIG"
    REF_MISMATCH = "REF_MISMATCH"
    TOO_LONG = "TOO_LONG"
    # Of --haplotypes alone.
    NOT_CARRIED = "NOT_CARRIED"
    UNPHASED = "UNPHASED"
    OK = "OK"


STATUS_MEANINGS: dict[Status, str] = {
    Status.NO_ALT: "the record has no ALT allele",
    Status.SYMBOLIC: "a symbolic allele, a name in angle brackets",
    Status.BREAKEND: "a breakend of a rearrangement",
    Status.STAR_ALLELE: "the allele *, removed by a deletion further up",
    Status.NON_ACGT: "a letter other than A, C, G, T in REF or in this ALT",
    Status.CONTIG_UNKNOWN: "the reference has no such contig, under any alias",
    Status.OUT_OF_CONTIG: "REF leaves the contig",
    Status.REF_MISMATCH: "REF differs from the reference",
    Status.TOO_LONG: "a trimmed allele longer than an eighth of the context",
    Status.NOT_CARRIED: "the sample has no haplotype with this allele, or no genotype",
    Status.UNPHASED: "the sample has this allele on one haplotype, and nobody knows on which",
    Status.OK: "scored",
}


def written_status(ref: str, alt: str | None) -> Status | None:
    """What keeps an allele from being scored whatever the reference, or None.

    alt: None for a record without ALT.
    """
    if alt is None:
        return Status.NO_ALT
    brackets = "[" in alt or "]" in alt
    # Also an assembled contig inserted by name, "G<ctg1>"; joined to one ("G[<ctg1>:7[") is a breakend.
    if alt.startswith("<") or ("<" in alt and not brackets):
        return Status.SYMBOLIC
    # Single breakends ("G.", ".G") name no mate.
    if brackets or (len(alt) > 1 and "." in (alt[0], alt[-1])):
        return Status.BREAKEND
    if alt == "*":
        return Status.STAR_ALLELE
    if not (ref and alt and _BASES.issuperset(ref) and _BASES.issuperset(alt)):
        return Status.NON_ACGT
    return None


def reference_status(
    pos1: int, ref: str, length: int, fetch: Callable[[int, int], bytes], *, circular: bool = False
) -> Status | None:
    """What the reference says against a REF allele of plain letters, or None if it agrees.

    length: of the contig.   fetch: its letters from start0 to end0; called only if these lie on it.
    circular: REF may pass the contig's end and goes on from its start, once around at most; `fetch` does so too.
    """
    start0, end0 = pos1 - 1, pos1 - 1 + len(ref)
    if not 0 <= start0 < length or (len(ref) > length if circular else end0 > length):
        return Status.OUT_OF_CONTIG
    if not matches_reference(ref, fetch(start0, end0).decode("ascii")):
        return Status.REF_MISMATCH
    return None


def matches_reference(ref: str, found: str) -> bool:
    """Whether REF agrees with the reference's letters; case is ignored, IUPAC codes by the VCF rule."""
    return ref.upper() == found.upper() or all(map(iupac_matches, found, ref))
