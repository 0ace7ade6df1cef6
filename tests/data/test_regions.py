"""Splits: region strings against a genome, and no leaks."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import genossm.genome
from genossm.core.errors import ConfigError, ContigNotFoundError, IntervalError
from genossm.data.regions import Splits, parse_regions, refuse_overlaps
from genossm.genome import Genome
from genossm.sequence.interval import Interval


@pytest.fixture
def genome(tmp_path: Path) -> Genome:
    path = tmp_path / "toy.fa"
    path.write_text(">20\n" + "ACGT" * 250 + "\n>21\n" + "ACGT" * 10 + "\n")
    return genossm.genome.open(path)


def test_regions_are_one_based_strings_contigs_or_aliases(genome: Genome) -> None:
    parsed = parse_regions(genome, ["20:1-100", "chr20:101-1,000", "21"])
    assert parsed == (Interval("20", 0, 100), Interval("20", 100, 1000), Interval("21", 0, 40))


def test_splits_that_only_touch_are_fine(genome: Genome) -> None:
    splits = Splits.parse(genome, ["20:1-100", "21"], ["20:101-200"], ["20:201-300"])
    assert sum(map(len, splits.train)) == 140
    assert splits.test == (Interval("20", 200, 300),)


def test_a_leak_is_refused_by_the_names_of_both(genome: Genome) -> None:
    with pytest.raises(ConfigError, match=r"splits\.train 20:1-100 and splits\.validation 20:100-200 overlap by 1 ba"):
        Splits.parse(genome, ["20:1-100"], ["20:100-200"])


def test_a_leak_through_an_alias_is_found(genome: Genome) -> None:
    with pytest.raises(ConfigError, match=r"splits\.validation 20:1-300 and splits\.test 20:51-60 overlap by 10"):
        Splits.parse(genome, ["21"], ["20:1-300"], ["chr20:51-60"])


def test_a_region_given_twice_is_refused(genome: Genome) -> None:
    with pytest.raises(ConfigError, match="count twice"):
        Splits.parse(genome, ["20:1-100", "20:50-120"], ["21"])


def test_training_and_validation_are_needed(genome: Genome) -> None:
    with pytest.raises(ConfigError, match=r"splits\.validation is empty"):
        Splits.parse(genome, ["20"], [])


def test_a_region_that_the_genome_lacks_says_so(genome: Genome) -> None:
    with pytest.raises(ContigNotFoundError, match="22"):
        parse_regions(genome, ["22:1-100"])
    with pytest.raises(IntervalError, match="ends after contig 20"):
        parse_regions(genome, ["20:1-2,000"])


@settings(deadline=None, max_examples=60)
@given(
    spans=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10), st.sampled_from(["a", "b"])), max_size=6),
)
def test_an_overlap_is_reported_exactly_when_there_is_one(spans: list[tuple[int, int, str]]) -> None:
    intervals = [Interval(contig, start, start + length) for start, length, contig in spans]
    clash = any(left.overlaps(right) for i, left in enumerate(intervals) for right in intervals[i + 1 :])
    named = {"train": intervals[::2], "test": intervals[1::2]}
    if clash:
        with pytest.raises(ConfigError, match="overlap by"):
            refuse_overlaps(named)
    else:
        refuse_overlaps(named)
