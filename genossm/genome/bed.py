"""BED files, and other text that names places, as intervals of a genome."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from genossm.core.errors import ContigNotFoundError, InputFileError, IntervalError
from genossm.genome.genome import Genome
from genossm.sequence.interval import Interval

_NO_RECORD = ("#", "track", "browser")


@dataclass(frozen=True, slots=True)
class BedRecord:
    """interval: on the genome's own contig name.   name, score: the fourth and fifth column, None where absent.

    line: in the file, from 1, for messages.
    """

    interval: Interval
    name: str | None
    score: str | None
    line: int


def read_bed(path: str | os.PathLike[str], genome: Genome) -> list[BedRecord]:
    """Every record of a BED file (plain or gzip), checked against the genome, in the file's order.

    Contigs may go by any alias. Lines that are empty, comments, `track` or `browser` are left out.
    Raises: InputFileError, naming the line, for a file that is missing, has no record, or a record that cannot be read,
    lies on no contig of the genome, or leaves its contig.
    """
    path = Path(path)
    records = []
    for number, text in _lines(path):
        fields = text.split("\t")
        interval = interval_from_fields(fields, genome, f"{path}, line {number}")
        name, score = (fields[i] if len(fields) > i else None for i in (3, 4))
        records.append(BedRecord(interval, name, score, number))
    if not records:
        raise InputFileError(f"{path} has no record; wanted BED lines: contig, start (0-based), end, split by tabs.")
    return records


def open_text(path: Path) -> TextIO:
    """A text file for reading, unpacked if its first bytes say gzip (or bgzip); line ends are kept as they are.

    Raises: OSError if it cannot be opened.
    """
    with open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    if packed:
        return gzip.open(path, "rt", newline="", encoding="utf-8")  # type: ignore[return-value]
    return open(path, newline="", encoding="utf-8-sig")


def interval_from_fields(fields: list[str], genome: Genome, where: str) -> Interval:
    """BED columns as an interval of `genome`, on its own contig name; `where` leads the message.

    Raises: InputFileError for columns that are no interval, a contig that the genome lacks, or an end past the contig.
    """
    try:
        interval = Interval.from_bed(fields)
        contig, length = genome.resolve(interval.contig), genome.length(interval.contig)
    except (IntervalError, ContigNotFoundError) as error:
        raise InputFileError(f"{where}: {error}") from error
    if interval.end > length:
        raise InputFileError(
            f"{where}: {interval} ends after contig {contig} of {genome.name}, which has {length:,} bases. "
            "Check the assembly."
        )
    return Interval(contig, interval.start, interval.end, interval.strand)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with open_text(path) as handle:
            for number, line in enumerate(handle, start=1):
                text = line.rstrip("\r\n")
                if text.strip() and not text.startswith(_NO_RECORD):
                    yield number, text
    except FileNotFoundError:
        raise InputFileError(f"No BED file at {path}. Check the path.") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputFileError(f"Cannot read BED file {path}: {error}.") from error
