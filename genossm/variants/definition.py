"""What the scores are, written the slow way: full passes over each haplotype, letter by letter, one at a time.

Nothing here is shared with the fast path; tests, and users who doubt a number, compare with it.
"""

from __future__ import annotations

import torch

from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Interval, Variant

_FIRST_BASE = {"R": "A", "Y": "C", "S": "C", "W": "A", "K": "G", "M": "A", "B": "C", "D": "A", "H": "A", "V": "A"}
_COMPLEMENT = dict(zip("ACGTRYSWKMBDHVN", "TGCAYRSWMKVHDBN"))
FLANK = 8
_AROUND = 768


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
        reference, alternative = complemented(reference)[behind:], complemented(alternative)[behind:]
    shared = 0
    while shared < min(len(reference), len(alternative)) and reference[shared] == alternative[shared]:
        shared += 1
    count = min(horizon, quarter, len(reference) - shared, len(alternative) - shared)
    return summed_log_probabilities(model, alternative, shared, count) - summed_log_probabilities(
        model, reference, shared, count
    )


def masked_llr(model: SequenceModel, genome: Genome, variant: Variant, *, context: int, strand: str = "+") -> float:
    """Masked log-likelihood ratio of one allele on one strand of a linear contig, in nats.

    REF has to agree with the reference.
    Substitutions: all REF positions masked at once in the reference's window, Σ ln p(ALT) − Σ ln p(REF) there. Changes
    of length: on each haplotype the 8 bases on either side of what differs, masked one at a time; ALT's sum − REF's.
    """
    reference, alternative, start, ref_end, alt_end = _in_window(genome, variant, context)
    if len(reference) == len(alternative):
        places = list(range(start, ref_end))
        found = masked_base_log_probabilities(model, reference, places, strand)
        return sum(found[place][alternative[place]] - found[place][reference[place]] for place in places)
    total = 0.0
    for sign, haplotype, end in ((1.0, alternative, alt_end), (-1.0, reference, ref_end)):
        for place in range(len(haplotype)):
            near = start - FLANK <= place < start or end <= place < end + FLANK
            if near and haplotype[place] in "ACGT":
                total += (
                    sign * masked_base_log_probabilities(model, haplotype, [place], strand)[place][haplotype[place]]
                )
    return total


def embedding_distances(
    model: SequenceModel, genome: Genome, variant: Variant, *, context: int, strand: str = "+"
) -> tuple[float, float, float, float]:
    """Distances of mean hidden states, ALT against REF, on one strand of a linear contig.

    REF has to agree with the reference.   Returns L2 and 1 − cosine of the means over what differs and 768 bases on
    either side of it, then L2 and 1 − cosine of the means over the whole window.
    """
    reference, alternative, start, ref_end, alt_end = _in_window(genome, variant, context)
    distances: list[float] = []
    for around in (_AROUND, context):
        ref = _mean_hidden(model, reference, start - around, ref_end + around, strand)
        alt = _mean_hidden(model, alternative, start - around, alt_end + around, strand)
        distances.append(float((alt - ref).norm()))
        distances.append(1.0 - float(torch.dot(alt, ref) / (alt.norm() * ref.norm())))
    a, b, c, d = distances
    return a, b, c, d


def _in_window(genome: Genome, variant: Variant, context: int) -> tuple[str, str, int, int, int]:
    """`(reference, alternative, start, ref_end, alt_end)`: both haplotypes of the variant's window, plus strand.

    `start` to `ref_end` of the reference, `start` to `alt_end` of the alternative are what differs, with all
    placements of an indel: before `start` and from the ends on both read the same.
    """
    chromosome = genome.fetch(Interval(variant.contig, 0, genome.length(variant.contig))).decode("ascii")
    reference, alternative, start0 = _haplotypes(chromosome, variant)
    shorter = min(len(reference), len(alternative))
    before = 0
    while before < shorter and reference[before] == alternative[before]:
        before += 1
    behind = 0
    while behind < shorter and reference[-1 - behind] == alternative[-1 - behind]:
        behind += 1
    start, behind = min(before, shorter - behind), min(behind, shorter - before)
    ref_end, alt_end = len(reference) - behind, len(alternative) - behind
    window_start = max(0, (start0 - context // 4) // (context // 2)) * (context // 2)
    window_end = min(window_start + context, len(chromosome))
    longer = len(alternative) - len(reference)
    reference, alternative = reference[window_start:window_end], alternative[window_start : window_end + longer]
    return reference, alternative, start - window_start, ref_end - window_start, alt_end - window_start


@torch.inference_mode()
def masked_base_log_probabilities(
    model: SequenceModel, haplotype: str, places: list[int], strand: str
) -> dict[int, dict[str, float]]:
    """ln p of every base, as the plus strand has it, at places that are masked together."""
    read = haplotype if strand == "+" else complemented(haplotype)
    own = {place: place if strand == "+" else len(haplotype) - 1 - place for place in places}
    ids = model.encode(read)
    for place in own.values():
        ids[0, place] = model.tokenizer.mask_id
    logits = model(ids).logits[0].double()
    found: dict[int, dict[str, float]] = {}
    for place in places:
        values = torch.log_softmax(logits[own[place], list(model.tokenizer.base_ids)], dim=0)
        found[place] = {base if strand == "+" else _COMPLEMENT[base]: float(p) for base, p in zip("ACGT", values)}
    return found


@torch.inference_mode()
def _mean_hidden(model: SequenceModel, haplotype: str, first: int, last: int, strand: str) -> torch.Tensor:
    """Mean of what the head reads over bases `first` to `last` of the plus strand, as far as there are any."""
    bos = model.begins_with_bos
    ids = model.encode(haplotype if strand == "+" else complemented(haplotype), add_bos=bos)
    states = model(ids, return_hidden_states=True).hidden_states
    assert states is not None
    hidden = states[-1][0, int(bos) :].double()
    if strand == "-":
        hidden = hidden.flip(0)
    return hidden[max(0, first) : last].mean(dim=0)


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


def complemented(letters: str) -> str:
    return "".join(_COMPLEMENT[letter] for letter in reversed(letters))


@torch.inference_mode()
def summed_log_probabilities(model: SequenceModel, haplotype: str, first: int, count: int) -> float:
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
