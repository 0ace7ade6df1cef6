"""What the causal score is, written the slow way: two full passes over each haplotype, letter by letter.

Nothing here is shared with the fast path; tests, and users who doubt a number, compare with it.
"""

from __future__ import annotations

import torch

from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Interval, Variant

_FIRST_BASE = {"R": "A", "Y": "C", "S": "C", "W": "A", "K": "G", "M": "A", "B": "C", "D": "A", "H": "A", "V": "A"}
_COMPLEMENT = dict(zip("ACGTRYSWKMBDHVN", "TGCAYRSWMKVHDBN"))


def causal_llr(
    model: SequenceModel, genome: Genome, variant: Variant, *, context: int, horizon: int, strand: str = "+"
) -> float:
    """Causal log-likelihood ratio of one allele on one strand of a linear contig, in nats.

    REF has to agree with the reference.   horizon: letters compared at most, before the limit of context / 4.
    """
    chromosome = genome.fetch(Interval(variant.contig, 0, genome.length(variant.contig))).decode("ascii")
    reference, alternative, start0 = _haplotypes(chromosome, variant)
    half, quarter = context // 2, context // 4
    k = max(0, (start0 - quarter) // half)
    window_start = k * half
    window_end = min(window_start + context, len(chromosome))
    if strand == "+":
        reference, alternative = reference[window_start:], alternative[window_start:]
    else:
        behind = len(chromosome) - window_end
        reference, alternative = _reversed(reference)[behind:], _reversed(alternative)[behind:]
    shared = 0
    while shared < min(len(reference), len(alternative)) and reference[shared] == alternative[shared]:
        shared += 1
    count = min(horizon, quarter, len(reference) - shared, len(alternative) - shared)
    return _sum(model, alternative, shared, count) - _sum(model, reference, shared, count)


def _haplotypes(chromosome: str, variant: Variant) -> tuple[str, str, int]:
    """Both haplotypes of the whole contig, and the start0 of the left-aligned variant."""
    start, ref, alt = variant.pos1 - 1, variant.ref, variant.alt
    while ref and alt and ref[-1] == alt[-1]:
        ref, alt = ref[:-1], alt[:-1]
    while ref and alt and ref[0] == alt[0]:
        start, ref, alt = start + 1, ref[1:], alt[1:]
    letters = list(chromosome)
    letters[start : start + len(ref)] = ref
    if ref and alt:
        chromosome = "".join(letters)
        return chromosome, chromosome[:start] + alt + chromosome[start + len(ref) :], start
    # Everything that an equivalent placement of an indel touches reads as REF would write it.
    unit = ref or alt
    right = start + len(ref)
    while right < len(letters) and _first_base(letters[right]) == unit[(right - start - len(ref)) % len(unit)]:
        letters[right] = _first_base(letters[right])
        right += 1
    while start > 0 and _first_base(letters[start - 1]) == unit[-1]:
        letters[start - 1] = unit[-1]
        unit, start = unit[-1] + unit[:-1], start - 1
    chromosome = "".join(letters)
    if ref:
        return chromosome, chromosome[:start] + chromosome[start + len(ref) :], max(0, start - 1)
    return chromosome, chromosome[:start] + unit + chromosome[start:], max(0, start - 1)


def _first_base(letter: str) -> str:
    return _FIRST_BASE.get(letter, letter)


def _reversed(letters: str) -> str:
    return "".join(_COMPLEMENT[letter] for letter in reversed(letters))


@torch.inference_mode()
def _sum(model: SequenceModel, haplotype: str, first: int, count: int) -> float:
    """Σ ln p of `count` letters from `first` on, after everything before them in `haplotype`."""
    if count <= 0:
        return 0.0
    ids = model.encode(haplotype[: first + count], add_bos=model.begins_with_bos)
    logits = model(ids).logits[0].double()
    total = 0.0
    for place in range(first, first + count):
        letter = haplotype[place]
        output = place - 1 + int(model.begins_with_bos)
        if letter in "ACGT" and output >= 0:
            bases = logits[output, list(model.tokenizer.base_ids)]
            total += float(torch.log_softmax(bases, dim=0)["ACGT".index(letter)])
    return total
