"""Splits written as one BED file with a split's name in the fourth column, and regions with holes."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from genossm.core.errors import ConfigError, InputFileError
from genossm.data.regions import Splits, merged
from genossm.genome.bed import read_bed
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
    apart: dict[str, list[Interval]] = {}
    for hole in merged(holes):
        apart.setdefault(hole.contig, []).append(hole)
    kept = [piece for region in regions for piece in _around(region, apart.get(region.contig, []))]
    if not kept:
        raise ConfigError("The excluded intervals cover every region, so nothing is left. Exclude less.")
    return tuple(kept)


def _around(region: Interval, holes: Sequence[Interval]) -> Iterator[Interval]:
    """What is left of a region; the holes are those of its contig, sorted and apart."""
    start = region.start
    first = bisect_right(holes, region.start, key=lambda hole: hole.end)
    for hole in holes[first : bisect_left(holes, region.end, key=lambda hole: hole.start)]:
        if hole.start > start:
            yield Interval(region.contig, start, hole.start, region.strand)
        start = max(start, hole.end)
    if start < region.end:
        yield Interval(region.contig, start, region.end, region.strand)
