"""BED files as intervals of a genome, and splits written as one BED file with a split's name in the fourth column."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genossm.core.errors import ConfigError, InputFileError
from genossm.data.regions import Splits
from genossm.data.text import interval_from_fields, open_text
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome

_SPLIT_NAMES = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
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


def splits_from_bed(path: str | os.PathLike[str], genome: Genome) -> Splits:
    """Splits from a BED file whose fourth column is train, valid (or validation, val) or test, as Basenji writes it.

    Raises: InputFileError as `read_bed`, or for another name; ConfigError for splits that overlap or lack train or
    validation.
    """
    found: dict[str, list[Interval]] = {"train": [], "validation": [], "test": []}
    for record in read_bed(path, genome):
        split = _SPLIT_NAMES.get(record.name or "")
        if split is None:
            raise InputFileError(
                f"{path}, line {record.line}: the fourth column is {record.name!r}; wanted train, valid or test."
            )
        found[split].append(record.interval)
    return Splits(tuple(found["train"]), tuple(found["validation"]), tuple(found["test"]))


def subtract(regions: Sequence[Interval], holes: Sequence[Interval]) -> tuple[Interval, ...]:
    """What is left of `regions`, in their order, without the bases of `holes`; strands of holes do not matter.

    Raises: ConfigError if nothing is left.
    """
    kept = [piece for region in regions for piece in _around(region, holes)]
    if not kept:
        raise ConfigError("The excluded intervals cover every region, so nothing is left. Exclude less.")
    return tuple(kept)


def _around(region: Interval, holes: Sequence[Interval]) -> Iterator[Interval]:
    start = region.start
    for hole in sorted((hole for hole in holes if region.overlaps(hole)), key=lambda hole: hole.start):
        if hole.start > start:
            yield Interval(region.contig, start, hole.start, region.strand)
        start = max(start, hole.end)
    if start < region.end:
        yield Interval(region.contig, start, region.end, region.strand)


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
