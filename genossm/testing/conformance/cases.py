"""The files of the suite as values: what is asked, and what is expected of each ALT allele."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
REFERENCE, ALIASES, CASES, EXPECTED = (
    HERE / name for name in ("reference.fa", "aliases.tsv", "cases.vcf", "expected.tsv")
)
CIRCULAR = "pPCP1"
CONTEXT = 512


@dataclass(frozen=True)
class Expectation:
    """A line of `expected.tsv`.

    case: INFO/CASE of the record.   allele: from 1; 0 for a record without ALT.   status: the word that is due.
    score: "none", "finite", "nonzero", "zero", or "same:CASE/ALLELE".   needs: what a tool has to have for this.
    """

    case: str
    allele: int
    status: str
    score: str
    needs: tuple[str, ...]
    reason: str

    @property
    def name(self) -> str:
        return f"{self.case}/{self.allele}"


@dataclass(frozen=True)
class Malformed:
    """A data line that no VCF has; it stands at line `number` of the file that `text` gives."""

    name: str
    line: str
    reason: str

    @property
    def number(self) -> int:
        return len(_head()) + 2

    def text(self) -> str:
        """A file with one good record in front of the line, and one behind it."""
        good = "20\t1001\t.\t{}\t{}\t.\t.\t.\tGT\t0/1\t./.".format(*_good())
        return "\n".join([*_head(), good, self.line, good]) + "\n"


def expectations() -> tuple[Expectation, ...]:
    """The table, in its order."""
    with open(EXPECTED, encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    return tuple(
        Expectation(
            row["case"],
            int(row["allele"]),
            row["status"],
            row["score"],
            () if row["needs"] == "." else tuple(row["needs"].split(",")),
            row["reason"],
        )
        for row in rows
    )


def header_and_records(text: bytes) -> tuple[list[bytes], list[bytes]]:
    """Header lines up to the column names, and data lines, without their ends."""
    lines = [line.rstrip(b"\r") for line in text.split(b"\n") if line]
    return [line for line in lines if line.startswith(b"#")], [line for line in lines if not line.startswith(b"#")]


def entries(record: bytes) -> list[bytes]:
    """INFO entries of a data line, as written."""
    info = record.split(b"\t")[7]
    return [] if info == b"." else info.split(b";")


def value(record: bytes, key: str) -> str | None:
    """What INFO says of a key; None if it is not there."""
    found = [entry.partition(b"=")[2] for entry in entries(record) if entry.partition(b"=")[0] == key.encode()]
    return found[0].decode("utf-8") if found else None


def _head() -> list[str]:
    header, _ = header_and_records(CASES.read_bytes())
    return [line.decode("utf-8") for line in header]


def _good() -> tuple[str, str]:
    _, records = header_and_records(CASES.read_bytes())
    columns = next(record for record in records if value(record, "CASE") == "snv").decode("utf-8").split("\t")
    return columns[3], columns[4]


MALFORMED = (
    Malformed("columns", "20\t1001\t.\tA\tC\t.\t.\t.\tGT", "fewer columns than the line of column names"),
    Malformed("spaces", "20 1001 . A C . . . GT 0/1 ./.", "spaces where tabs are due"),
    Malformed("position", "20\t10O1\t.\tA\tC\t.\t.\t.\tGT\t0/1\t./.", "a letter in POS"),
    Malformed("negative", "20\t-5\t.\tA\tC\t.\t.\t.\tGT\t0/1\t./.", "a negative POS"),
    Malformed("no-ref", "20\t1001\t.\t\tC\t.\t.\t.\tGT\t0/1\t./.", "an empty REF"),
    Malformed("two-refs", "20\t1001\t.\tA,G\tC\t.\t.\t.\tGT\t0/1\t./.", "two alleles in REF"),
    Malformed("empty-alt", "20\t1001\t.\tA\tC,\t.\t.\t.\tGT\t0/1\t./.", "an empty allele in ALT"),
    Malformed("no-contig", "\t1001\t.\tA\tC\t.\t.\t.\tGT\t0/1\t./.", "an empty CHROM"),
)
"""Lines at which a tool stops and says which line it is, rather than guess or skip."""
