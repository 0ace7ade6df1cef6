"""BED files read against a genome."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

import genossm.genome
from genossm.core.errors import InputFileError
from genossm.genome import Genome
from genossm.genome.bed import read_bed
from genossm.sequence import Interval
from genossm.testing import toy_genome, write_fasta


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Genome]:
    path = write_fasta(tmp_path_factory.mktemp("bed") / "x.fa", toy_genome())
    with genossm.genome.open(path) as opened:
        yield opened


@pytest.mark.parametrize("packed", [False, True])
def test_records_in_the_files_order_on_the_genomes_own_names(tmp_path: Path, genome: Genome, packed: bool) -> None:
    text = "track name=x\n# comment\n1\t10\t20\tfirst\t7\t-\r\n\nchr1\t0\t5\n"
    path = tmp_path / "x.bed"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    first, second = read_bed(path, genome)
    assert (first.interval, first.name, first.score, first.line) == (Interval("chr1", 10, 20, "-"), "first", "7", 3)
    assert (second.interval, second.name, second.score) == (Interval("chr1", 0, 5), None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no record"),
        ("# only this\n", "has no record"),
        ("chr1\t0\t5\nchr1 0 5\n", "line 2.*wanted at least 3"),
        ("chr1\t0\tx\n", "line 1.*end is 'x'"),
        ("chr1\t9\t9\n", "line 1.*no interval"),
        ("chrZ\t0\t5\n", "line 1.*chrZ"),
        ("chr1\t0\t999999\n", "line 1.*ends after contig chr1.*Check the assembly"),
    ],
)
def test_bad_files_name_the_line(tmp_path: Path, genome: Genome, text: str, message: str) -> None:
    (tmp_path / "x.bed").write_text(text)
    with pytest.raises(InputFileError, match=message):
        read_bed(tmp_path / "x.bed", genome)


def test_a_missing_or_cut_file(tmp_path: Path, genome: Genome) -> None:
    with pytest.raises(InputFileError, match="No BED file"):
        read_bed(tmp_path / "none.bed", genome)
    packed = gzip.compress(b"chr1\t0\t5\n" * 1000)
    (tmp_path / "cut.bed.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputFileError, match="Cannot read BED file"):
        read_bed(tmp_path / "cut.bed.gz", genome)
