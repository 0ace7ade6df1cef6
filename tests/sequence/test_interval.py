from __future__ import annotations

import re

import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genossm.core.errors import ContigNotFoundError, IntervalError
from genossm.sequence import Interval, parse_region
from genossm.testing.strategies import intervals

LENGTHS = {"chr1": 10_000, "chrM": 16_569, "HLA-A*01:01:01": 3_503, "HLA-A*01:01": 500}


def length_of(contig: str) -> int:
    if contig not in LENGTHS:
        raise ContigNotFoundError(f"no contig {contig!r}")
    return LENGTHS[contig]


@given(intervals())
def test_region_and_bed_round_trips(interval: Interval) -> None:
    assert Interval.parse(str(interval)) == interval
    assert Interval.parse(str(interval).replace(",", "")) == interval
    assert Interval.from_bed(interval.to_bed()) == interval
    assert Interval.from_bed([*interval.to_bed("name", 7).split("\t"), "more"]) == interval


def test_regions_are_one_based_and_inclusive() -> None:
    interval = Interval.parse("chr1:1,001-2,000")
    assert (interval.start, interval.end, len(interval)) == (1000, 2000, 1000)
    assert str(interval) == "chr1:1,001-2,000"
    assert str(Interval("chr1", 0, 1, "-")) == "chr1:1-1(-)"


@given(interval=intervals({"20": 4_000_000}, strands="+"))
def test_regions_mean_what_samtools_means(interval: Interval, human_reference: pysam.FastaFile) -> None:
    region = str(Interval(interval.contig, interval.start, min(interval.end, interval.start + 500)))
    parsed = Interval.parse(region)
    expected = human_reference.fetch("20", parsed.start, parsed.end)
    assert human_reference.fetch(region=region.replace(",", "")) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chr1", "Cannot read region 'chr1'; wanted contig:first-last, 1-based"),
        ("chr1:5", "one number"),
        ("chr1:5-", "has no last base"),
        ("chr1:0-5", "the first base is 1"),
        ("chr1:9-5", r"ends before it starts \(5 < 9\)"),
        ("chr1:1,00-5", "Cannot read region"),
        ("chr1:-5-7", "Cannot read region"),
        ("chr1:1-5(*)", "Cannot read region"),
        (":1-5", "Cannot read region"),
        ("chr1:1e3-2e3", "Cannot read region"),
        ("chr1:١-٢", "Cannot read region"),
        ("", "Cannot read region ''"),
    ],
)
def test_bad_regions_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(IntervalError, match=message):
        Interval.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("chr1", ("chr1", 0, 10_000)),
        ("chr1:9,001-", ("chr1", 9000, 10_000)),
        ("chr1:1-10000", ("chr1", 0, 10_000)),
        ("HLA-A*01:01:01", ("HLA-A*01:01:01", 0, 3503)),
        ("HLA-A*01:01:01:5-6", ("HLA-A*01:01:01", 4, 6)),
        ("chr1:5-6(-)", ("chr1", 4, 6, "-")),
    ],
)
def test_whole_contigs_and_open_ends(text: str, expected: tuple[str, int, int]) -> None:
    assert parse_region(text, length_of) == Interval(*expected)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("chr1:9999-10001", IntervalError, "ends after contig chr1, which has 10,000 bases"),
        ("chr1:10001-", IntervalError, "ends before it starts"),
        ("chr1:77", IntervalError, "one number"),
        ("chr2", ContigNotFoundError, "chr2"),
        ("chr2:1-5", ContigNotFoundError, "chr2"),
        ("chr1;1-5", ContigNotFoundError, "chr1;1-5"),
    ],
)
def test_bad_regions_of_a_genome(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_region(text, length_of)


def test_a_region_that_reads_both_ways_is_refused() -> None:
    lengths = {"a": 100, "a:1-5": 100}
    with pytest.raises(IntervalError, match="is a contig of its own and also a part of contig 'a'"):
        parse_region("a:1-5", lambda contig: lengths[contig] if contig in lengths else length_of(contig))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("c", -1, 5), "wanted 0 <= start < end"),
        (("c", 5, 5), "wanted 0 <= start < end"),
        (("c", 6, 5), "start 6, end 5"),
        (("", 0, 5), "name of a contig"),
        (("c", 0, 5, "*"), r"strand '\*'"),
    ],
)
def test_impossible_intervals(arguments: tuple[str, int, int], message: str) -> None:
    with pytest.raises(IntervalError, match=message):
        Interval(*arguments)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("chr1\t5", "2 columns"),
        ("chr1 5 10", "1 columns"),
        ("chr1\tx\t10", "start is 'x'"),
        ("chr1\t5\t1e4", "end is '1e4'"),
    ],
)
def test_bad_bed_lines(line: str, message: str) -> None:
    with pytest.raises(IntervalError, match=message):
        Interval.from_bed(line)


def test_bed_is_zero_based_and_a_dot_is_no_strand() -> None:
    assert Interval.from_bed("chr1\t0\t10\n") == Interval("chr1", 0, 10)
    assert Interval.from_bed("chr1\t0\t10\tx\t0\t.\r\n").strand == "+"
    assert Interval.from_bed("chr1\t0\t10\tx\t0\t-").strand == "-"


@given(intervals({"a": 30, "b": 30}), intervals({"a": 30, "b": 30}))
def test_set_operations_are_those_of_sets(first: Interval, second: Interval) -> None:
    def bases(interval: Interval | None) -> set[tuple[str, int]]:
        return set() if interval is None else {(interval.contig, i) for i in range(interval.start, interval.end)}

    assert bases(first.intersect(second)) == bases(first) & bases(second)
    assert first.overlaps(second) == bool(bases(first) & bases(second)) == second.overlaps(first)
    assert first.contains(second) == (bases(second) <= bases(first))
    shared = first.intersect(second)
    assert shared is None or shared.strand == first.strand


@given(intervals({"a": 100}), st.integers(min_value=0, max_value=50))
def test_shift_and_expand(interval: Interval, by: int) -> None:
    assert interval.shift(by).shift(-by) == interval
    clipped = interval.expand(by, contig_length=100)
    assert (clipped.start, clipped.end) == (max(0, interval.start - by), min(100, interval.end + by))
    if interval.start >= by:
        assert interval.expand(by).expand(-by) == interval
    else:
        with pytest.raises(IntervalError, match=re.escape(f"start {interval.start - by}")):
            interval.expand(by)
        with pytest.raises(IntervalError):
            interval.shift(-by)
