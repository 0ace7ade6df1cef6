"""Places on a contig: 0-based half-open inside; 1-based region strings and BED lines at the border."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from genossm.core.errors import ContigNotFoundError, IntervalError, UsageError

_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_REGION = re.compile(rf"(?P<contig>.+):(?P<first>{_NUMBER})-(?P<last>{_NUMBER})?(?:\((?P<strand>[+-])\))?")
_SINGLE = re.compile(rf"(?P<contig>.+):(?P<first>{_NUMBER})")
_FORM = "wanted contig:first-last, 1-based and inclusive, as in chr1:1,000-2,000"


@dataclass(frozen=True, order=True)
class Interval:
    """Bases `start` to `end` of a contig, 0-based half-open, on one strand.

    Raises: IntervalError if it is empty, starts before 0, or the strand is neither "+" nor "-".
    """

    contig: str
    start: int
    end: int
    strand: str = "+"

    def __post_init__(self) -> None:
        if not self.contig:
            raise IntervalError("An interval needs the name of a contig; got an empty one.")
        if self.start < 0 or self.end <= self.start:
            raise IntervalError(
                f"{self.contig}: start {self.start}, end {self.end} is no interval; wanted 0 <= start < end "
                "(0-based, end not included)."
            )
        if self.strand not in ("+", "-"):
            raise IntervalError(f"{self.contig}:{self.start}: strand {self.strand!r} is neither '+' nor '-'.")

    def __len__(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        """1-based region, `chr1:1,001-2,000`; the minus strand is marked `(-)` at the end."""
        return f"{self.contig}:{self.start + 1:,}-{self.end:,}" + ("(-)" if self.strand == "-" else "")

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Read a 1-based region `chr1:1,000-2,000`, commas and a final `(-)` optional.

        Raises: IntervalError that says what is wrong. For whole contigs and open ends see `parse_region`.
        """
        contig, first, last, strand = _split_region(text)
        if last is None:
            raise IntervalError(f"Region {text!r} has no last base; {_FORM}.")
        return _from_one_based(text, contig, first, last, strand)

    @classmethod
    def from_bed(cls, fields: str | Sequence[str]) -> Interval:
        """Read a BED line or its columns: contig, start (0-based), end, and strand if there is a sixth column.

        Raises: IntervalError naming the column that cannot be read.
        """
        columns = fields.rstrip("\r\n").split("\t") if isinstance(fields, str) else list(fields)
        if len(columns) < 3:
            raise IntervalError(f"BED line {fields!r} has {len(columns)} columns, wanted at least 3, split by tabs.")
        for name, column in (("start", columns[1]), ("end", columns[2])):
            if not (column.isascii() and column.isdigit()):
                raise IntervalError(f"BED line {fields!r}: {name} is {column!r}, wanted a whole number.")
        strand = columns[5] if len(columns) > 5 else "+"
        # "." is BED's "no strand", which reads forwards.
        return cls(columns[0], int(columns[1]), int(columns[2]), "+" if strand == "." else strand)

    def to_bed(self, name: str = ".", score: int = 0) -> str:
        """A BED line of six columns, without the line end."""
        return f"{self.contig}\t{self.start}\t{self.end}\t{name}\t{score}\t{self.strand}"

    def overlaps(self, other: Interval) -> bool:
        """Whether the two share a base; strands do not matter."""
        return self.contig == other.contig and self.start < other.end and other.start < self.end

    def contains(self, other: Interval) -> bool:
        """Whether every base of `other` is one of ours; strands do not matter."""
        return self.contig == other.contig and self.start <= other.start and other.end <= self.end

    def intersect(self, other: Interval) -> Interval | None:
        """The shared bases on our strand, or None."""
        if not self.overlaps(other):
            return None
        return replace(self, start=max(self.start, other.start), end=min(self.end, other.end))

    def shift(self, by: int) -> Interval:
        """Moved by so many bases to the right. Raises: IntervalError if that is before the contig's start."""
        return replace(self, start=self.start + by, end=self.end + by)

    def expand(self, by: int, *, contig_length: int | None = None) -> Interval:
        """Longer by so many bases on both sides (shorter if negative); clipped to the contig if its length is given.

        Raises: IntervalError if it would start before 0 with no `contig_length` to clip it, or if nothing is left.
        """
        start, end = self.start - by, self.end + by
        if contig_length is not None:
            start, end = max(0, start), min(contig_length, end)
        return replace(self, start=start, end=end)


def as_interval(interval: Interval | str) -> Interval:
    """An interval as it is, or a 1-based region as `Interval.parse` reads it. Raises: IntervalError; UsageError."""
    if isinstance(interval, Interval):
        return interval
    if isinstance(interval, str):
        return Interval.parse(interval)
    raise UsageError(
        f"{interval!r} is no interval; wanted an Interval, or a region such as 'chr1:1,000-2,000' (1-based, inclusive)."
    )


def parse_region(text: str, length_of: Callable[[str], int]) -> Interval:
    """Read `chr1:1,000-2,000`, `chr1:1000-` (to the end) or `chr1` (all of it).

    length_of: length of a contig; raises ContigNotFoundError for a name that it does not know.
    Raises: IntervalError for anything else, a region past the contig's end, or a text that reads both ways.
    """
    whole = _length_or_none(text, length_of)
    try:
        contig, first, last, strand = _split_region(text)
    except IntervalError:
        if whole is not None:
            return Interval(text, 0, whole)
        if ":" not in text:
            length_of(text)  # raises, naming the nearest contig
        raise
    if whole is not None and _length_or_none(contig, length_of) is not None:
        raise IntervalError(f"Region {text!r} is a contig of its own and also a part of contig {contig!r}; rename one.")
    if whole is not None:
        return Interval(text, 0, whole)
    length = length_of(contig)
    interval = _from_one_based(text, contig, first, length if last is None else last, strand)
    if interval.end > length:
        raise IntervalError(f"Region {text!r} ends after contig {contig}, which has {length:,} bases.")
    return interval


def _length_or_none(contig: str, length_of: Callable[[str], int]) -> int | None:
    try:
        return length_of(contig)
    except ContigNotFoundError:
        return None


def _split_region(text: str) -> tuple[str, int, int | None, str]:
    match = _REGION.fullmatch(text.strip())
    if match is None:
        if _SINGLE.fullmatch(text.strip()):
            raise IntervalError(
                f"Region {text!r} has one number, which some tools read as a single base and some as the rest of the "
                "contig. Write first-last for a piece, or first- for the rest."
            )
        raise IntervalError(f"Cannot read region {text!r}; {_FORM}.")
    last = match["last"]
    return match["contig"], _number(match["first"]), None if last is None else _number(last), match["strand"] or "+"


def _from_one_based(text: str, contig: str, first: int, last: int, strand: str) -> Interval:
    if first < 1:
        raise IntervalError(f"Region {text!r} starts at 0, but regions are 1-based: the first base is 1.")
    if last < first:
        raise IntervalError(f"Region {text!r} ends before it starts ({last:,} < {first:,}).")
    return Interval(contig, first - 1, last, strand)


def _number(text: str) -> int:
    return int(text.replace(",", ""))
