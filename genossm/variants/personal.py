"""`--haplotypes SAMPLE`: which haplotypes of a sample carry an allele, and what else stands on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genossm.core.errors import UsageError
from genossm.sequence import trimmed_alleles
from genossm.variants.genotypes import Genotype, Sample
from genossm.variants.locate import Allele, Located, Locator
from genossm.variants.sample_haplotypes import Carrier, Edit, SampleHaplotypes
from genossm.variants.status import Status
from genossm.variants.stretches import CarriedPlacement
from genossm.variants.vcf_input import Record, can_be_read_twice, open_vcf

_PLAIN = (Status.OK, Status.TOO_LONG)


class Personal:
    """A sample's haplotypes, and which of them carry a record's alleles."""

    def __init__(self, name: str, sample: Sample, haplotypes: SampleHaplotypes) -> None:
        self.name, self.haplotypes, self._sample = name, haplotypes, sample

    def of_record(self, record: Record, located: Sequence[Located]) -> list[Located]:
        """The same alleles; those that no haplotype, or nobody knows which, carries have that for their status."""
        genotype = self._sample.genotype(record.columns)
        return [
            _carried(one, number, genotype) if one.status is Status.OK else one
            for number, one in enumerate(located, start=1)
        ]

    def as_dict(self) -> dict[str, Any]:
        """For a summary."""
        skipped = {reason: count for reason, count in sorted(self.haplotypes.skipped.items()) if count}
        return {"sample": self.name, "alleles": self.haplotypes.carried, "left_out": skipped}


def read_personal(source: str | Path, name: str, locator: Locator) -> Personal:
    """Read the whole of a file for one sample's haplotypes.

    Raises: UsageError for a stream, which cannot be read twice, and a sample that is not there; InputFileError.
    """
    if not can_be_read_twice(source):
        raise UsageError("--haplotypes reads the file twice, which a pipe or standard input allows once. Pass a file.")
    haplotypes = SampleHaplotypes()
    with open_vcf(source) as vcf:
        sample = Sample(name, vcf.header[-1], vcf.name)
        for record in vcf.records:
            genotype = sample.genotype(record.columns)
            if any(genotype.alleles):
                _add(haplotypes, record, genotype, locator)
    haplotypes.settle()
    return Personal(name, sample, haplotypes)


def _add(haplotypes: SampleHaplotypes, record: Record, genotype: Genotype, locator: Locator) -> None:
    for number, alt in enumerate(record.alts, start=1):
        carrying = genotype.haplotypes(number)
        if carrying == ():
            continue
        located = locator.locate(Allele(record.contig, record.pos1, record.ref, alt))
        if located.status not in _PLAIN:
            # What * stands for is the deletion further up, which is made.
            haplotypes.skipped[located.status] += located.status is not Status.STAR_ALLELE
        elif carrying is None:
            haplotypes.skipped[Status.UNPHASED] += 1
        elif edit := _edit(record.pos1, record.ref, alt):
            contig = locator.genome.resolve(record.contig)
            haplotypes.add(contig, edit, carrying, genotype.phase_set, same=genotype.same)


def _edit(pos1: int, ref: str, alt: str) -> Edit | None:
    offset, ref, alt = trimmed_alleles(ref.upper(), alt.upper())
    start = pos1 - 1 + offset
    return Edit(start, start + len(ref), alt.encode("ascii")) if ref or alt else None


def _carried(one: Located, number: int, genotype: Genotype) -> Located:
    carrying = genotype.haplotypes(number)
    if not carrying:
        status = Status.UNPHASED if carrying is None else Status.NOT_CARRIED
        return Located(one.variant, status)
    edit = _edit(one.variant.pos1, one.variant.ref, one.variant.alt or "")
    if one.placement is None or edit is None:
        return one
    carriers = tuple(Carrier(haplotype, genotype.phase_set) for haplotype in carrying)
    return Located(one.variant, Status.OK, CarriedPlacement.of(one.placement, edit, carriers))
