"""One sample's genotypes, read from the text of a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from genossm.core.errors import UsageError

_FIXED = 9


@dataclass(frozen=True, slots=True)
class Genotype:
    """alleles: by haplotype; 0 is REF, None is missing.   phased: whether their order says which haplotype each is on.
    phase_set: within which it does; None for the one of all records that name none.
    """

    alleles: tuple[int | None, ...]
    phased: bool
    phase_set: int | None = None

    @property
    def same(self) -> bool:
        """Whether every haplotype has the same allele, so that phase says nothing."""
        return len(set(self.alleles)) == 1

    def haplotypes(self, allele: int) -> tuple[int, ...] | None:
        """Numbers of the haplotypes that have an allele; None if it is there, and on which nobody knows."""
        if allele not in self.alleles:
            return ()
        if not (self.phased or self.same):
            return None
        return tuple(number for number, one in enumerate(self.alleles) if one == allele)


MISSING = Genotype((), phased=True)


class Sample:
    """Finds one sample's column. Raises: UsageError if there is no such sample, naming those that there are."""

    def __init__(self, name: str, column_names: bytes, file: str) -> None:
        names = [text.decode("utf-8", errors="replace") for text in column_names.split(b"\t")[_FIXED:]]
        if name not in names:
            there = f"it has {', '.join(names[:5])}{' …' if len(names) > 5 else ''}" if names else "it has none"
            raise UsageError(f"--haplotypes {name}: {file} has no such sample; {there}.")
        if names.count(name) > 1:
            raise UsageError(f"--haplotypes {name}: {file} has two samples of that name. Rename one.")
        self._behind = names.index(name) + 1

    def genotype(self, columns: Sequence[bytes]) -> Genotype:
        """That of a record, whose columns are the first eight and all others in one."""
        if len(columns) < _FIXED:
            return MISSING
        fields = columns[_FIXED - 1].split(b"\t", self._behind + 1)
        keys, values = fields[0].split(b":"), fields[self._behind].split(b":")
        said = dict(zip(keys, values))
        return parse_genotype(said.get(b"GT", b"."), said.get(b"PS", b"."))


def parse_genotype(text: bytes, phase_set: bytes = b".") -> Genotype:
    """Read `0|1`, `1/1`, `1`, `.|1`, `|0|1` (VCF 4.4); what is no genotype is missing."""
    body = text[1:] if text[:1] in (b"|", b"/") else text
    unphased = b"/" in body or (text[:1] == b"/")
    words = body.replace(b"|", b"/").split(b"/")
    if not all(word == b"." or word.isdigit() for word in words):
        return MISSING
    alleles = tuple(None if word == b"." else int(word) for word in words)
    return Genotype(alleles, not unphased, int(phase_set) if phase_set.isdigit() else None)
