"""Splits as one BED file, and regions with holes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import genossm.genome
from genossm.core.errors import ConfigError, InputFileError
from genossm.data.splits_bed import splits_from_bed, subtract
from genossm.genome import Genome
from genossm.sequence import Interval
from genossm.testing import toy_genome, write_fasta


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Genome]:
    path = write_fasta(tmp_path_factory.mktemp("bed") / "x.fa", toy_genome())
    with genossm.genome.open(path) as opened:
        yield opened


def test_splits_as_basenji_writes_them(tmp_path: Path, genome: Genome) -> None:
    path = tmp_path / "sequences.bed"
    path.write_text("chr1\t0\t100\ttrain\nchr1\t200\t300\tvalid\nchr2\t0\t50\ttrain\nchr1\t400\t500\ttest\n")
    splits = splits_from_bed(path, genome)
    assert splits.train == (Interval("chr1", 0, 100), Interval("chr2", 0, 50))
    assert (splits.validation, splits.test) == ((Interval("chr1", 200, 300),), (Interval("chr1", 400, 500),))
    path.write_text("chr1\t0\t100\ttrain\nchr1\t50\t300\tvalid\n")
    with pytest.raises(ConfigError, match="overlap by 50 bases"):
        splits_from_bed(path, genome)
    path.write_text("chr1\t0\t100\ttraining\n")
    with pytest.raises(InputFileError, match="line 1: the fourth column is 'training'"):
        splits_from_bed(path, genome)


@st.composite
def many(draw: st.DrawFn) -> list[Interval]:
    starts = draw(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 40), st.integers(1, 15)), max_size=8))
    return [Interval(contig, start, start + length) for contig, start, length in starts]


@given(regions=many(), holes=many())
def test_subtracting_leaves_just_the_bases_outside(regions: list[Interval], holes: list[Interval]) -> None:
    gone = {(hole.contig, place) for hole in holes for place in range(hole.start, hole.end)}
    expected = [
        (region.contig, place)
        for region in regions
        for place in range(region.start, region.end)
        if (region.contig, place) not in gone
    ]
    if not expected:
        with pytest.raises(ConfigError, match="nothing is left"):
            subtract(regions, holes)
        return
    left = subtract(regions, holes)
    assert [(piece.contig, place) for piece in left for place in range(piece.start, piece.end)] == expected
    assert not any(piece.overlaps(hole) for piece in left for hole in holes)
