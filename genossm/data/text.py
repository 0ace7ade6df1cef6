"""Text files, plain or gzip, and places on a genome that such files name."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from genossm.core.errors import ContigNotFoundError, InputFileError, IntervalError
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome


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
