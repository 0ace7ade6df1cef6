"""Which parts of a genome are for training, validation and test, and that they do not touch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from genossm.core.errors import ConfigError
from genossm.genome.bed import read_bed
from genossm.sequence.interval import Interval, parse_region

if TYPE_CHECKING:
    from genossm.genome import Genome


@dataclass(frozen=True)
class Splits:
    """Disjoint intervals; `test` may be empty, since training never reads it.

    Raises: ConfigError if two intervals share a base, naming both; if train or validation is empty.
    """

    train: tuple[Interval, ...]
    validation: tuple[Interval, ...]
    test: tuple[Interval, ...] = ()

    def __post_init__(self) -> None:
        for name in ("train", "validation"):
            if not getattr(self, name):
                raise ConfigError(f"splits.{name} is empty. Give at least one region, such as 20:1,000,001-3,000,000.")
        refuse_overlaps({"train": self.train, "validation": self.validation, "test": self.test})

    @classmethod
    def parse(cls, genome: Genome, train: Sequence[str], validation: Sequence[str], test: Sequence[str] = ()) -> Splits:
        """Read region strings against `genome`; aliases become its own contig names.

        Raises: IntervalError or ContigNotFoundError for a region that the genome does not have; ConfigError as above.
        """
        return cls(parse_regions(genome, train), parse_regions(genome, validation), parse_regions(genome, test))


def parse_regions(genome: Genome, texts: Iterable[str]) -> tuple[Interval, ...]:
    """Region strings (1-based, `20:1,000,001-3,000,000`, or a contig's name for all of it) as intervals of `genome`.

    A text that ends in .bed or .bed.gz is a BED file: its intervals, those that overlap or touch as one, on no strand.
    Raises: IntervalError for a region that cannot be read or leaves its contig; ContigNotFoundError; InputFileError,
    naming the line, for such a BED file.
    """
    intervals: list[Interval] = []
    for text in texts:
        if is_bed(text):
            intervals += merged([record.interval for record in read_bed(text, genome)])
            continue
        region = parse_region(text, genome.length)
        intervals.append(Interval(genome.resolve(region.contig), region.start, region.end, region.strand))
    return tuple(intervals)


def is_bed(text: str) -> bool:
    """Whether a text names a BED file and no region."""
    return text.endswith((".bed", ".bed.gz", ".bed.bgz"))


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """Intervals that overlap or touch made one, on the plus strand, sorted."""
    found: list[Interval] = []
    for interval in sorted(intervals, key=lambda one: (one.contig, one.start)):
        last = found[-1] if found else None
        if last is not None and last.contig == interval.contig and interval.start <= last.end:
            found[-1] = Interval(last.contig, last.start, max(last.end, interval.end))
        else:
            found.append(Interval(interval.contig, interval.start, interval.end))
    return found


def refuse_overlaps(named: dict[str, Sequence[Interval]]) -> None:
    """Raise ConfigError if any two intervals share a base, within a split or between two.

    named: intervals by the name of their split; contig names must be resolved, or an alias hides a leak.
    """
    listed = sorted(
        ((interval, name) for name, intervals in named.items() for interval in intervals),
        key=lambda entry: (entry[0].contig, entry[0].start, entry[0].end),
    )
    # Sorted by start, the first overlap that exists shows between some interval and the next one.
    for (left, left_name), (right, right_name) in pairwise(listed):
        shared = left.intersect(right)
        if shared is None:
            continue
        if left_name == right_name:
            why = "its bases would count twice"
        else:
            why = "what is judged would have been learnt"
        raise ConfigError(
            f"splits.{left_name} {left} and splits.{right_name} {right} overlap by {len(shared):,} bases: {why}. "
            "Move one of them."
        )
