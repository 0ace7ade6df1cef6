"""Which records of a file are asked for: regions on the command line, or a BED file of them."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from genossm.core.errors import ContigNotFoundError
from genossm.genome import Genome
from genossm.genome.bed import read_bed
from genossm.sequence import Interval, parse_region
from genossm.variants.vcf_input import Record

# What follows a comma inside a number: three digits, and then the number's end or the region's dash.
_REST_OF_NUMBER = re.compile(r"[0-9]{3}(-[0-9]{0,3})?")


class Regions:
    """Intervals of a genome; a record is in them if its REF shares a base with one, as bcftools sees it.

    texts: lists of regions (1-based) split by commas; a comma within a number is none that splits.   bed: a BED file.
    Raises: IntervalError and ContigNotFoundError for a region that the genome does not have; InputFileError for a BED
    file that cannot be read.
    """

    def __init__(self, genome: Genome, texts: Iterable[str] = (), bed: Path | None = None) -> None:
        named = [parse_region(region, genome.length) for text in texts for region in split_list(text)]
        listed = [] if bed is None else [record.interval for record in read_bed(bed, genome)]
        self._genome = genome
        self._by_contig = {contig: _merged(ranges) for contig, ranges in _ranges(genome, [*named, *listed]).items()}

    def __bool__(self) -> bool:
        return bool(self._by_contig)

    def select(self, records: Iterator[Record]) -> Iterator[Record]:
        """The records that are in the regions, in their order."""
        return (record for record in records if self._holds(record))

    def _holds(self, record: Record) -> bool:
        try:
            merged = self._by_contig.get(self._genome.resolve(record.contig), [])
        except ContigNotFoundError:
            return False
        start = record.pos1 - 1
        # The last range that begins before REF ends is the only one that can still reach it.
        after = bisect_right(merged, (start + len(record.ref) - 1, self._genome.length(record.contig) + 1))
        return after > 0 and merged[after - 1][1] > start


def split_list(text: str) -> list[str]:
    """Regions of a list split by commas: `20:1,000-2,000,21` is `20:1,000-2,000` and `21`."""
    pieces: list[str] = []
    for piece in text.split(","):
        if pieces and ":" in pieces[-1] and _REST_OF_NUMBER.fullmatch(piece):
            pieces[-1] += f",{piece}"
        elif piece:
            pieces.append(piece)
    return pieces


def _ranges(genome: Genome, intervals: Sequence[Interval]) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for interval in intervals:
        found[genome.resolve(interval.contig)].append((interval.start, interval.end))
    return found


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted ranges without overlaps."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged
