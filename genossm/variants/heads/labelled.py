"""Labelled alleles: from a table, or from the INFO fields of a VCF."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from genossm.core.errors import InputFileError, UsageError
from genossm.variants.heads.covariates import Values
from genossm.variants.info_fields import allele_text, info_fields
from genossm.variants.locate import Allele
from genossm.variants.table_columns import find_columns
from genossm.variants.table_files import open_table
from genossm.variants.vcf_input import open_vcf

_VCF = (".vcf", ".vcf.gz", ".vcf.bgz", ".bcf")
_MISSING = ("", ".", "nan", "NaN", "NA", "None")


@dataclass(frozen=True)
class LabelColumn:
    """name: of the column or INFO key.   positive: the words that are the positive class; every other is negative, or
    those of `negative` alone, where there are any: then alleles of other words are left out.
    at_least, at_most: a number of at least the one is positive, of at most the other negative; between them lie
    alleles that are left out. None of the three: the label is 0 or 1, or, for regression, a number.
    """

    name: str
    positive: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    negative: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.at_least is None) != (self.at_most is None):
            raise UsageError("--at-least says which alleles are positive, --at-most which are negative: give both.")
        if self.at_least is not None and self.at_most is not None and self.at_most >= self.at_least:
            raise UsageError(f"--at-most {self.at_most:g} is not below --at-least {self.at_least:g}.")
        if self.positive and self.at_least is not None:
            raise UsageError("--positive is for words, --at-least and --at-most for numbers: give one of the two.")

    def described(self) -> str:
        """In words, without quotes, for headers."""
        if self.at_least is not None:
            return f"{self.name} of at least {self.at_least:g} against at most {self.at_most:g}"
        return f"{self.name} being {' or '.join(self.positive)}" if self.positive else self.name

    def read(self, text: str, place: str, *, classes: bool) -> float | None:
        """A label, None for an allele that is left out. Raises: InputFileError for one that cannot be read."""
        if self.positive:
            known = text in self.positive or text in self.negative or not self.negative
            return float(text in self.positive) if known else None
        try:
            value = float(text)
        except ValueError:
            raise InputFileError(
                f"{place}: the label {self.name} is {text!r}; wanted a number. Say which words are positive: "
                "--positive."
            ) from None
        if self.at_least is not None and self.at_most is not None:
            return 1.0 if value >= self.at_least else 0.0 if value <= self.at_most else None
        if classes and value not in (0.0, 1.0):
            raise InputFileError(
                f"{place}: the label {self.name} is {text}; wanted 0 or 1. Say which numbers are which: --at-least, "
                "--at-most; or predict the number itself: --kind ridge."
            )
        return value


@dataclass(frozen=True)
class Labelled:
    """One allele.   label: its number.   group: the word that says what it must not be separated from, or None."""

    allele: Allele
    label: float
    group: str | None
    place: str


def read_labelled(
    path: Path,
    label: LabelColumn,
    *,
    classes: bool,
    covariates: Sequence[str] = (),
    group: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> list[Labelled]:
    """The alleles of a file that have a label, in its order.

    path: a table, or a VCF or BCF, whose INFO keys then are the columns.   classes: labels are 0 and 1.
    Raises: InputFileError for columns or values that are missing or cannot be read, or labels of one class alone.
    """
    names: list[str] = list(dict.fromkeys((label.name, *covariates, *((group,) if group else ()))))
    found: list[Labelled] = []
    seen = Counter[str]()
    for allele, values, place in (_from_vcf if str(path).endswith(_VCF) else _from_table)(path, names, columns):
        text = str(values[label.name] if values[label.name] is not None else "").strip()
        number = None if text in _MISSING else label.read(text, place, classes=classes)
        seen[text] += 1
        if number is not None:
            told = {name: values[name] for name in covariates}
            stretch = str(values[group]) if group else None
            found.append(Labelled(replace(allele, covariates=told), number, stretch, place))
    if classes and len({one.label for one in found}) == 1:
        usual = ", ".join(f"{text or 'nothing'} ({count:,})" for text, count in seen.most_common(5))
        raise InputFileError(
            f"{path}: all {len(found):,} alleles with a label are of one class by {label.described()}; wanted two. "
            f"The column holds {usual}."
        )
    return found


_Row = tuple[Allele, Values, str]


def _from_table(path: Path, names: Sequence[str], given: Mapping[str, str] | None) -> Iterator[_Row]:
    with open_table(path) as table:
        columns = find_columns(table.names, given, name=table.name)
        absent = [name for name in names if name not in table.names]
        if absent:
            raise InputFileError(f"{path} has no column {absent[0]!r}; it has {', '.join(table.names)}.")
        for block in table.blocks(8192):
            alleles = columns.alleles([block.column(name) for name in columns.names], block.places)
            for allele, row, place in zip(alleles, zip(*(block.column(name) for name in names)), block.places):
                yield allele, dict(zip(names, row)), place


def _from_vcf(path: Path, names: Sequence[str], given: Mapping[str, str] | None) -> Iterator[_Row]:
    if given:
        raise UsageError("--columns is for tables: a VCF says itself what is what.")
    with open_vcf(path) as vcf:
        for record in vcf.records:
            fields = info_fields(record)
            for number, alt in enumerate(record.alts):
                values = {name: allele_text(record, fields, name, number) for name in names}
                yield Allele(record.contig, record.pos1, record.ref, alt), values, f"{vcf.name}, {record.place}"
