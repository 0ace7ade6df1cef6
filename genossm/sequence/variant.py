"""One allele change at one place: REF to ALT at a 1-based position, as VCF writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from genossm.core.errors import VariantError
from genossm.sequence.alphabet import IUPAC_BASES

Kind = Literal["snv", "mnv", "insertion", "deletion", "complex"]

_ALLELE = "".join(IUPAC_BASES)
_ALLELE_PATTERN = re.compile(f"[{_ALLELE}]+")
_POSITION = r"(?P<pos>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_ALLELES = r"(?P<ref>[^\s:_>-]+){}(?P<alt>[^\s:_>-]+)"
# Greedy contigs: a separator inside a contig's name (HLA-A, chr1_random) belongs to the name.
_FORMS = (
    re.compile(rf"(?P<contig>.+):(?:g\.)?{_POSITION}:?" + r"(?P<ref>[A-Za-z]+)>(?P<alt>[A-Za-z]+)"),
    *(re.compile(rf"(?P<contig>.+){sep}{_POSITION}{sep}" + _ALLELES.format(sep)) for sep in (":", "-", "_")),
)


def trimmed_alleles(ref: str, alt: str) -> tuple[int, str, str]:
    """`(offset, ref, alt)` without what the alleles share at their end, then at their start; either may be empty.

    offset: how many letters went from the start. Ends go first, so that indels keep their leftmost place.
    """
    shortest = min(len(ref), len(alt))
    back = 0
    while back < shortest and ref[-1 - back] == alt[-1 - back]:
        back += 1
    ref, alt = ref[: len(ref) - back], alt[: len(alt) - back]
    front = 0
    while front < shortest - back and ref[front] == alt[front]:
        front += 1
    return front, ref[front:], alt[front:]


@dataclass(frozen=True)
class Variant:
    """REF replaced by ALT at 1-based `pos1`; alleles are upper case, at least one letter each.

    Raises: VariantError for a position below 1, an allele that is not plain sequence (symbolic, `*`, breakend,
    empty), or ALT equal to REF.
    """

    contig: str
    pos1: int
    ref: str
    alt: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "ref", self.ref.upper())
        object.__setattr__(self, "alt", self.alt.upper())
        where = f"{self.contig}:{self.pos1}"
        if not self.contig:
            raise VariantError(f"A variant needs the name of a contig; got an empty one at position {self.pos1}.")
        if self.pos1 < 1:
            raise VariantError(f"{where}: position {self.pos1} is before the contig; the first base is 1.")
        for name, allele in (("REF", self.ref), ("ALT", self.alt)):
            if not _ALLELE_PATTERN.fullmatch(allele):
                raise VariantError(f"{where}: {name} is {_short(allele)}, wanted letters of {_ALLELE}, at least one.")
        if self.ref == self.alt:
            raise VariantError(f"{where}: REF and ALT are both {_short(self.ref)}, so nothing changes.")

    def __str__(self) -> str:
        return f"{self.contig}:{self.pos1}:{self.ref}>{self.alt}"

    @property
    def start0(self) -> int:
        """0-based start of REF."""
        return self.pos1 - 1

    @property
    def end0(self) -> int:
        """0-based end of REF, not included."""
        return self.start0 + len(self.ref)

    @property
    def kind(self) -> Kind:
        """What changes once shared letters are trimmed; AC>AT is a "snv", AC>A a "deletion"."""
        _, ref, alt = trimmed_alleles(self.ref, self.alt)
        if not ref:
            return "insertion"
        if not alt:
            return "deletion"
        if len(ref) != len(alt):
            return "complex"
        return "snv" if len(ref) == 1 else "mnv"

    @property
    def is_snv(self) -> bool:
        """Whether exactly one base is replaced by one other."""
        return self.kind == "snv"

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read `chr1:12345:A>G`, `chr1:12345A>G`, `chr1:g.12345A>G`, `1:12345:A:G`, `1-12345-A-G` or `1_12345_A_G`.

        Positions are 1-based, commas allowed. Raises: VariantError that says what is wrong.
        """
        for form in _FORMS:
            match = form.fullmatch(text.strip())
            if match:
                return cls(match["contig"], int(match["pos"].replace(",", "")), match["ref"], match["alt"])
        raise VariantError(
            f"Cannot read variant {_short(text)}; wanted contig:position:REF>ALT (1-based), as in 20:1000226:A>T, "
            "or 20-1000226-A-T."
        )

    @classmethod
    def from_vcf_row(cls, text: str) -> tuple[Variant, ...]:
        """The variants of a VCF data line, one an ALT allele, in the line's order.

        Raises: VariantError if the line has under five columns, an unreadable position, or an allele that is no
        plain sequence.
        """
        columns = text.rstrip("\r\n").split("\t")
        if len(columns) < 5:
            raise VariantError(
                f"VCF line {_short(text)} has {len(columns)} columns, wanted CHROM, POS, ID, REF, ALT, … split by tabs."
            )
        contig, position, _, ref, alts = columns[:5]
        if not (position.isascii() and position.isdigit()):
            raise VariantError(f"VCF line {_short(text)}: POS is {position!r}, wanted a whole number.")
        return tuple(cls(contig, int(position), ref, alt) for alt in alts.split(","))

    def to_vcf_row(self, identifier: str = ".") -> str:
        """A VCF data line of eight columns (QUAL, FILTER and INFO missing), without the line end."""
        return "\t".join((self.contig, str(self.pos1), identifier, self.ref, self.alt, ".", ".", "."))


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
