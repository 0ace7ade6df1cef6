"""What scores on a haplotype are, written the slow way, as `definition` does for the reference.

The bases of the contig are cells, in which a sample's other alleles are made one by one; no ambiguity codes.
"""

from __future__ import annotations

from collections.abc import Sequence

from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Interval, Variant
from genossm.variants.definition import FLANK, complemented, masked_base_log_probabilities, summed_log_probabilities

Cells = list[tuple[str, str]]


def haplotype_causal_llr(
    model: SequenceModel,
    genome: Genome,
    variant: Variant,
    others: Sequence[Variant],
    *,
    context: int,
    horizon: int,
    strand: str = "+",
) -> float:
    """Causal log-likelihood ratio of an allele on one strand of a haplotype that also has `others`, in nats.

    others: those that overlap the allele, or a border of its window, are not made; they do not overlap one another.
    """
    reference, alternative, start, end = _cells(genome, variant, others, context)
    ref, alt = (_read(cells, start, len(cells) - 1) for cells in (reference, alternative))
    if strand == "-":
        ref, alt = (complemented(_read(cells, 0, end)) for cells in (reference, alternative))
    shared = 0
    while shared < min(len(ref), len(alt)) and ref[shared] == alt[shared]:
        shared += 1
    count = min(horizon, context // 4, len(ref) - shared, len(alt) - shared)
    return summed_log_probabilities(model, alt, shared, count) - summed_log_probabilities(model, ref, shared, count)


def haplotype_masked_llr(
    model: SequenceModel,
    genome: Genome,
    variant: Variant,
    others: Sequence[Variant],
    *,
    context: int,
    strand: str = "+",
) -> float:
    """Masked log-likelihood ratio of an allele on one strand of a haplotype that also has `others`, in nats."""
    reference, alternative, start, end = _cells(genome, variant, others, context)
    first = len(_read(reference, 0, start)) if start else 0
    whole = [_read(cells, 0, len(cells) - 1) for cells in (reference, alternative)]
    shorter = min(map(len, whole))
    before = next((i for i in range(shorter) if whole[0][i] != whole[1][i]), shorter)
    behind = next((i for i in range(shorter) if whole[0][-1 - i] != whole[1][-1 - i]), shorter)
    begin, behind = min(before, shorter - behind) - first, min(behind, shorter - before)
    ref_end, alt_end = (len(letters) - behind - first for letters in whole)
    ref, alt = (_read(cells, start, end) for cells in (reference, alternative))
    if len(ref) == len(alt):
        places = list(range(begin, ref_end))
        found = masked_base_log_probabilities(model, ref, places, strand)
        return sum(found[place][alt[place]] - found[place][ref[place]] for place in places)
    total = 0.0
    for sign, letters, last in ((1.0, alt, alt_end), (-1.0, ref, ref_end)):
        for place in range(len(letters)):
            near = begin - FLANK <= place < begin or last <= place < last + FLANK
            if near and letters[place] in "ACGT":
                total += sign * masked_base_log_probabilities(model, letters, [place], strand)[place][letters[place]]
    return total


def _cells(genome: Genome, variant: Variant, others: Sequence[Variant], context: int) -> tuple[Cells, Cells, int, int]:
    """The contig without and with the allele, and where its window is on the reference."""
    chromosome = genome.fetch(Interval(variant.contig, 0, genome.length(variant.contig))).decode("ascii")
    start0 = _left_aligned(chromosome, variant)
    start = max(0, (start0 - context // 4) // (context // 2)) * (context // 2)
    end = min(start + context, len(chromosome))
    first, ref, _ = _trimmed(variant)
    reference: Cells = [*(("", letter) for letter in chromosome), ("", "")]
    for other in others:
        place, taken, _ = _trimmed(other)
        last = place + len(taken)
        crosses = any(place < border < last for border in (start, end))
        touches = max(first, place) < min(first + len(ref), last)
        inside = first < place < first + len(ref) if not taken else place < first < last if not ref else touches
        if not (crosses or inside or (place == first and not taken and not ref)):
            reference = _made(reference, other)
    return reference, _made(reference, variant), start, end


def _made(cells: Cells, variant: Variant) -> Cells:
    """What is inserted stands before a cell's base, what replaces bases in the first one's cell."""
    start, ref, alt = _trimmed(variant)
    changed = list(cells)
    if not ref:
        changed[start] = changed[start][0] + alt, changed[start][1]
        return changed
    for place in range(start, start + len(ref)):
        changed[place] = changed[place][0], alt if place == start else ""
    return changed


def _read(cells: Cells, start: int, end: int) -> str:
    """Letters from a border of cells to another; an insertion at `start` lies before it, one at `end` too."""
    first = cells[start][1] if start else "".join(cells[0])
    return first + "".join(before + base for before, base in cells[start + 1 : end]) + cells[end][0]


def _trimmed(variant: Variant) -> tuple[int, str, str]:
    start, ref, alt = variant.pos1 - 1, variant.ref, variant.alt
    while ref and alt and ref[-1] == alt[-1]:
        ref, alt = ref[:-1], alt[:-1]
    while ref and alt and ref[0] == alt[0]:
        start, ref, alt = start + 1, ref[1:], alt[1:]
    return start, ref, alt


def _left_aligned(chromosome: str, variant: Variant) -> int:
    """The start0 of the allele's left-aligned VCF form on the reference."""
    start, ref, alt = _trimmed(variant)
    if ref and alt:
        return start
    unit = ref or alt
    while start > 0 and chromosome[start - 1] == unit[-1]:
        unit, start = unit[-1] + unit[:-1], start - 1
    return max(0, start - 1)
